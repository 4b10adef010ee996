// How well a model reads beyond its training length: the mean negative log-likelihood of each next token, by position,
// for ways of stretching rotary positions, with and without log-n scaling, of holding them back (ReRoPE and its
// relatives), and for a window.

#include "support/attend.hpp"
#include "support/command_line.hpp"
#include "support/loss.hpp"
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
  int rerope_window = 256;
};

void declare(CLI::App& app, options& o) {
  o.add_to(app);
  app.add_option("--text", o.text, "Stories to read")->required()->type_name("FILE");
  app.add_option("--length", o.length, "Tokens a window")->check(CLI::Range(2, 1 << 20))->capture_default_str();
  app.add_option("--windows", o.windows, "Windows to average over")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option(
         "--rerope-window", o.rerope_window,
         "Distances that rerope, leaky_rerope and self_extend leave as they are; beyond it leaky_rerope's k and "
         "self_extend's group are the least that keep --length within the training length: "
         "(length - 1 - window) / (training length - 1 - window), rounded up")
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

/// −ln p of every token of a window but the first, given those before it, filed under the position that foretells it.
void read_window(transformer& llama, std::span<int const> window, range_means& nll) {
  constexpr Eigen::Index block = 256;  // rows of logits at a time: a large vocabulary makes them long
  matrix const hidden = llama.forward(window);
  Eigen::Index const last = hidden.rows() - 1;
  for (Eigen::Index first = 0; first < last; first += block) {
    matrix const logits = llama.logits(hidden.middleRows(first, std::min(block, last - first)));
    for (Eigen::Index i = 0; i < logits.rows(); ++i) {
      auto const position = static_cast<int>(first + i);
      nll.add(position, negative_log_likelihood(logits.row(i), window[static_cast<std::size_t>(position) + 1]));
    }
  }
}

struct result_row {
  std::string method;
  range_means nll;
};

struct method {
  std::string name;
  attention_way way;
};

/// Every scheme of attend.hpp; with log-n as well, except where far keys are slowed down or hidden.
std::vector<method> all_methods(options const& o, llama2_shape const& shape, heed::thread_pool& executor) {
  std::vector<method> methods;
  for (position_scheme const& scheme : position_schemes) {
    std::string const name(scheme.name == "standard" ? "rope" : scheme.name);
    heed::index const window = scheme.name == "window" ? shape.train_len : o.rerope_window;
    position_code const code = scheme.make({shape.head_dim(), shape.train_len, static_cast<double>(o.length), window});
    methods.push_back({name, attend_with(code, false, shape.train_len, executor, o.in_bytes())});
    if (!scheme.has_window || name == "rerope")
      methods.push_back({name + "+logn", attend_with(code, true, shape.train_len, executor, o.in_bytes())});
  }
  return methods;
}

std::vector<result_row> measure(options const& o, llama2 const& model, std::vector<int> const& stream,
                                std::vector<int> const& edges) {
  team workers(o.threads);
  std::vector<method> const methods = all_methods(o, model.shape(), workers.executor());
  progress const bar(static_cast<int>(methods.size()) * o.windows);
  int done = 0;
  std::vector<result_row> rows;
  for (method const& m : methods) {
    range_means nll(edges);
    for (int w = 0; w < o.windows; ++w, ++done) {
      bar.show(done, m.name);
      transformer llama(model, m.way, o.length);
      auto const length = static_cast<std::size_t>(o.length);
      read_window(llama, std::span(stream).subspan(static_cast<std::size_t>(w) * length, length), nll);
    }
    rows.push_back({m.name, nll});
  }
  return rows;
}

// --- the table -----------------------------------------------------------------------------------------------------

void print_table(std::vector<result_row> const& rows) {
  range_means const& ranges = rows.front().nll;
  std::printf("%-16s", "method");
  for (std::size_t r = 0; r < ranges.size(); ++r)
    std::printf(" %11s", ranges.name(r).c_str());
  std::printf("\n");
  for (result_row const& row : rows) {
    std::printf("%-16s", row.method.c_str());
    for (std::size_t r = 0; r < ranges.size(); ++r)
      std::printf(" %11.3f", row.nll.mean(r));
    std::printf("\n");
  }
}

void write_csv(std::ostream& out, std::vector<result_row> const& rows) {
  range_means const& ranges = rows.front().nll;
  out << "method";
  for (std::size_t r = 0; r < ranges.size(); ++r)
    out << ',' << ranges.name(r);
  out << '\n' << std::fixed << std::setprecision(6);
  for (result_row const& row : rows) {
    out << row.method;
    for (std::size_t r = 0; r < ranges.size(); ++r)
      out << ',' << row.nll.mean(r);
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

  std::vector<result_row> const rows = measure(o, model, stream, range_edges(o.length));
  std::printf("Mean negative log-likelihood of the next token, in nats, by position (lower is better).\n"
              "%d x %d tokens; the model was trained at length %d.\n\n",
              o.windows, o.length, model.shape().train_len);
  print_table(rows);
  if (!o.csv.empty()) {
    write_csv(csv, rows);
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
