// How well a model reads beyond its training length: the mean negative log-likelihood of each next token, by position,
// for several ways of stretching rotary positions, each with and without log-n scaling.

#include "support/command_line.hpp"
#include "support/progress.hpp"

#include <fstream>
#include <iomanip>
#include <iterator>

namespace {

using namespace example;

struct options : common_options {
  std::string text, csv;
  int length = 2048;
  int windows = 5;
};

void declare(CLI::App& app, options& o) {
  o.add_to(app);
  app.add_option("--text", o.text, "Stories to read")->required()->type_name("FILE");
  app.add_option("--length", o.length, "Tokens a window")->check(CLI::Range(2, 1 << 20))->capture_default_str();
  app.add_option("--windows", o.windows, "Windows to average over")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--csv", o.csv, "Where to write the table as CSV")->type_name("FILE");
}

// --- the text ------------------------------------------------------------------------------------------------------

bool starts_story(std::string_view paragraph) {
  constexpr std::string_view openings[] = {"Once upon", "One day", "There was", "There once"};
  return std::ranges::any_of(openings, [&](std::string_view opening) { return paragraph.starts_with(opening); });
}

/// Cuts before every paragraph that opens a story. Paragraphs are separated by blank lines; what stands before the
/// first story belongs to it.
std::vector<std::string> split_stories(std::string_view text) {
  std::vector<std::string> stories;
  while (!text.empty()) {
    std::size_t const end = std::min(text.find("\n\n"), text.size());
    std::string_view const paragraph = text.substr(0, end);
    text.remove_prefix(std::min(end + 2, text.size()));
    if (stories.empty() || starts_story(paragraph))
      stories.emplace_back(paragraph);
    else
      stories.back().append("\n\n").append(paragraph);
  }
  return stories;
}

/// BOS and a story, BOS and a story, …: the first `wanted` tokens.
/// @throws file_error if the text has fewer
std::vector<int> token_stream(options const& o, tokenizer const& tokens) {
  std::vector<char> const bytes = read_file(o.text);
  auto const wanted = static_cast<std::size_t>(o.length) * static_cast<std::size_t>(o.windows);
  std::vector<int> stream;
  for (std::string const& story : split_stories({bytes.data(), bytes.size()})) {
    if (stream.size() >= wanted)
      break;
    stream.push_back(tokenizer::bos);
    std::ranges::copy(tokens.encode(" " + story), std::back_inserter(stream));
  }
  if (stream.size() < wanted)
    throw file_error(o.text + " is too short: " + std::to_string(o.windows) + " windows of " +
                     std::to_string(o.length) + " need " + std::to_string(wanted) + " tokens, it has " +
                     std::to_string(stream.size()));
  stream.resize(wanted);
  return stream;
}

// --- the measurement -----------------------------------------------------------------------------------------------

/// 0, 256, 512, 768, 1024, 1536, 2048, …, cut at the length: every range holds at least one prediction.
std::vector<int> range_edges(int length) {
  std::vector<int> edges{0};
  auto const cut = [&](int edge) {
    if (edge < length - 1)
      edges.push_back(edge);
  };
  cut(256);
  for (int octave = 512; octave < length; octave *= 2) {
    cut(octave);
    cut(octave + octave / 2);
  }
  edges.push_back(length);
  return edges;
}

/// Means over the positions of each range.
class range_means {
 public:
  explicit range_means(std::vector<int> const& edges)
      : edges_(edges), sums_(edges.size() - 1), counts_(edges.size() - 1) {}

  void add(int position, double value) {
    auto const range = std::ranges::upper_bound(edges_, position) - edges_.begin() - 1;
    sums_[static_cast<std::size_t>(range)] += value;
    counts_[static_cast<std::size_t>(range)] += 1;
  }

  std::vector<double> means() const {
    std::vector<double> result(sums_);
    for (std::size_t r = 0; r < result.size(); ++r)
      result[r] /= counts_[r];
    return result;
  }

 private:
  std::vector<int> edges_;
  std::vector<double> sums_, counts_;
};

/// −ln p of every token of a window but the first, given those before it, filed under the position that foretells it.
void read_window(transformer& llama, std::span<int const> window, range_means& nll) {
  constexpr Eigen::Index block = 256;  // rows of logits at a time: a large vocabulary makes them long
  matrix const hidden = llama.forward(window);
  Eigen::Index const last = hidden.rows() - 1;
  for (Eigen::Index first = 0; first < last; first += block) {
    matrix const logits = llama.logits(hidden.middleRows(first, std::min(block, last - first)));
    for (Eigen::Index i = 0; i < logits.rows(); ++i) {
      double const top = static_cast<double>(logits.row(i).maxCoeff());
      double const sum = (logits.row(i).cast<double>().array() - top).exp().sum();
      int const next = window[static_cast<std::size_t>(first + i + 1)];
      nll.add(static_cast<int>(first + i), top + std::log(sum) - static_cast<double>(logits(i, next)));
    }
  }
}

struct result_row {
  std::string method;
  std::vector<double> nll;
};

struct method {
  std::string name;
  attention_function attend;
};

/// Every scheme of attend.hpp, without and with log-n.
std::vector<method> all_methods(llama2_shape const& shape, int length, heed::thread_pool& executor) {
  std::vector<method> methods;
  double const factor = std::max(1.0, static_cast<double>(length) / shape.train_len);
  for (rope_scheme const& scheme : rope_schemes) {
    std::string const name(scheme.name == "standard" ? "rope" : scheme.name);
    auto const frequencies = scheme.make(shape.head_dim(), shape.train_len, factor);
    for (bool const log_n : {false, true})
      methods.push_back({name + (log_n ? "+logn" : ""), attend_rotary(frequencies, log_n, shape.train_len, executor)});
  }
  return methods;
}

std::vector<result_row> measure(options const& o, llama2 const& model, std::vector<int> const& stream,
                                std::vector<int> const& edges) {
  team workers(o.threads);
  std::vector<method> const methods = all_methods(model.shape(), o.length, workers.executor());
  progress const bar(static_cast<int>(methods.size()) * o.windows);
  int done = 0;
  std::vector<result_row> rows;
  for (method const& m : methods) {
    range_means nll(edges);
    for (int w = 0; w < o.windows; ++w, ++done) {
      bar.show(done, m.name);
      transformer llama(model, m.attend);
      auto const length = static_cast<std::size_t>(o.length);
      read_window(llama, std::span(stream).subspan(static_cast<std::size_t>(w) * length, length), nll);
    }
    rows.push_back({m.name, nll.means()});
  }
  return rows;
}

// --- the table -----------------------------------------------------------------------------------------------------

std::vector<std::string> range_names(std::vector<int> const& edges) {
  std::vector<std::string> names;
  for (std::size_t r = 0; r + 1 < edges.size(); ++r)
    names.push_back(std::to_string(edges[r]) + "-" + std::to_string(edges[r + 1]));
  return names;
}

void print_table(std::vector<std::string> const& ranges, std::vector<result_row> const& rows) {
  std::printf("%-16s", "method");
  for (std::string const& range : ranges)
    std::printf(" %11s", range.c_str());
  std::printf("\n");
  for (result_row const& row : rows) {
    std::printf("%-16s", row.method.c_str());
    for (double value : row.nll)
      std::printf(" %11.3f", value);
    std::printf("\n");
  }
}

void write_csv(std::ostream& out, std::vector<std::string> const& ranges, std::vector<result_row> const& rows) {
  out << "method";
  for (std::string const& range : ranges)
    out << ',' << range;
  out << '\n' << std::fixed << std::setprecision(6);
  for (result_row const& row : rows) {
    out << row.method;
    for (double value : row.nll)
      out << ',' << value;
    out << '\n';
  }
}

void extrapolate(options const& o) {
  llama2 const model(o.model);
  tokenizer const tokens(o.tokenizer, model.shape().vocabulary);
  std::vector<int> const stream = token_stream(o, tokens);
  std::ofstream csv;
  if (!o.csv.empty()) {  // opened before the work: it takes a while
    csv.open(o.csv);
    if (!csv)
      throw file_error("cannot write " + o.csv);
  }

  std::vector<int> const edges = range_edges(o.length);
  std::vector<result_row> const rows = measure(o, model, stream, edges);
  std::printf("Mean negative log-likelihood of the next token, in nats, by position (lower is better).\n"
              "%d x %d tokens; the model was trained at length %d.\n\n",
              o.windows, o.length, model.shape().train_len);
  print_table(range_names(edges), rows);
  if (!o.csv.empty()) {
    write_csv(csv, range_names(edges), rows);
    if (!csv.flush())
      throw file_error("cannot write " + o.csv);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Measures how a llama2.c model reads beyond its training length.", "extrapolate");
  options o;
  declare(app, o);
  return run_program(app, argc, argv, [&] { extrapolate(o); });
}
