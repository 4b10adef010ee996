// Writes text with a llama2.c model: heed attends and rotates, Eigen multiplies the matrices.

#include "support/attend.hpp"
#include "support/command_line.hpp"
#include "support/loss.hpp"

#include <chrono>
#include <random>
#include <utility>

namespace {

using namespace example;

struct options : common_options {
  int steps = 256;
  double temperature = 0;
  std::string prompt;
  std::string rope = "standard";
  double factor = 4;
  int window = 0;
  bool log_n = false;
  std::uint64_t seed = 0;
  bool ignore_end = false;
};

void declare(CLI::App& app, options& o) {
  o.add_to(app);
  app.add_option("--steps", o.steps, "Length of the text in tokens, the prompt's included")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--temperature", o.temperature, "How freely to draw; 0 takes the likeliest token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  app.add_option("--prompt", o.prompt, "Text to go on from");
  std::vector<std::string> names, windowed;
  for (position_scheme const& scheme : position_schemes) {
    names.emplace_back(scheme.name);
    if (scheme.has_window)
      windowed.emplace_back(scheme.name);
  }
  app.add_option(
         "--rope", o.rope,
         "What becomes of rotary positions: frequencies scaled (linear to yarn), distances that stop growing at "
         "the window (rerope) or grow slower from there (leaky_rerope, self_extend), or keys hidden (window)")
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  app.add_option("--factor", o.factor,
                 "Context over training length: for scaled --rope, and for how slow leaky_rerope and self_extend go")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  auto* const window = app.add_option("--window", o.window,
                                      "Distances that --rope rerope, leaky_rerope and self_extend leave as they are "
                                      "[half the training length], keys that --rope window sees [training length]");
  window->check(CLI::Range(1, 1 << 30));
  app.add_flag("--log-n", o.log_n, "Sharpen attention beyond the training length");
  app.add_option("--seed", o.seed, "Of the draws, for --temperature above 0")->capture_default_str();
  app.add_flag("--ignore-end", o.ignore_end, "Go on after the end of a text");
  app.callback([&o, window, windowed] {
    if (window->count() > 0 && std::ranges::find(windowed, o.rope) == windowed.end())
      throw CLI::ValidationError("--window", "goes with --rope " + CLI::detail::join(windowed, ", ") + " only");
  });
}

/// Draws from softmax(logits / temperature); at temperature 0 the likeliest.
class sampler {
 public:
  sampler(double temperature, std::uint64_t seed) : temperature_(temperature), random_(seed) {}

  int operator()(Eigen::Ref<Eigen::RowVectorXf const> const& logits) {
    Eigen::Index likeliest = 0;
    double const top = static_cast<double>(logits.maxCoeff(&likeliest));
    if (temperature_ == 0)
      return static_cast<int>(likeliest);
    Eigen::ArrayXd const weights = ((logits.cast<double>().array() - top) / temperature_).exp();
    // 53 random bits; std::uniform_real_distribution differs between standard libraries.
    double left = static_cast<double>(random_() >> 11) * 0x1p-53 * weights.sum();
    for (Eigen::Index token = 0; token < weights.size(); ++token) {
      left -= weights[token];
      if (left < 0)
        return static_cast<int>(token);
    }
    return static_cast<int>(likeliest);
  }

 private:
  double temperature_;
  std::mt19937_64 random_;
};

/// Prints a text token by token, as it comes.
class printer {
 public:
  explicit printer(tokenizer const& tokens) : tokens_(tokens) {}

  void operator()(int token) {
    std::string const piece = token == tokenizer::bos ? "\n\n" : tokens_.decode(previous_, token);
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
    previous_ = token;
  }

 private:
  tokenizer const& tokens_;
  int previous_ = tokenizer::bos;
};

class stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

std::vector<int> prompt_tokens(tokenizer const& tokens, std::string const& prompt) {
  std::vector<int> result{tokenizer::bos};
  if (!prompt.empty())
    for (int token : tokens.encode(" " + prompt))
      result.push_back(token);
  return result;
}

void report(char const* what, std::size_t tokens, double seconds) {
  if (tokens > 0)
    std::fprintf(stderr, "%s: %zu tokens, %.0f tokens/s\n", what, tokens, static_cast<double>(tokens) / seconds);
}

/// What the model thinks of what it wrote: the mean −ln p of the tokens it chose, by position.
void report(range_means const& nll) {
  bool first = true;
  for (std::size_t r = 0; r < nll.size(); ++r) {
    if (nll.empty(r))
      continue;
    if (std::exchange(first, false))
      std::fprintf(stderr, "mean negative log-likelihood of its own text, in nats, by position:\n");
    std::fprintf(stderr, "  %-11s %6.3f\n", nll.name(r).c_str(), nll.mean(r));
  }
}

/// `steps` tokens go through the model, as llama2.c counts: the prompt's, all at once, and then one at a time.
void write_text(options const& o, transformer& llama, tokenizer const& tokens) {
  std::vector<int> const prompt = prompt_tokens(tokens, o.prompt);
  auto const steps = static_cast<std::size_t>(o.steps);
  auto const given = std::span(prompt).first(std::min(prompt.size(), steps));
  printer print(tokens);
  for (std::size_t i = 1; i < prompt.size() && i <= steps; ++i)
    print(prompt[i]);

  stopwatch const prefill;
  matrix hidden = llama.forward(given);
  double const prefill_seconds = prefill.seconds();

  sampler sample(o.temperature, o.seed);
  range_means nll(range_edges(o.steps));
  stopwatch const decode;
  std::size_t passes = given.size();
  while (prompt.size() <= steps) {
    Eigen::RowVectorXf const logits = llama.logits(hidden.bottomRows(1));
    int const next = sample(logits);
    if (next == tokenizer::bos && !o.ignore_end)
      break;
    print(next);
    nll.add(static_cast<int>(passes) - 1, negative_log_likelihood(logits, next));
    if (passes == steps)
      break;
    hidden = llama.forward({&next, 1});
    ++passes;
  }
  double const decode_seconds = decode.seconds();
  std::printf("\n");
  std::fflush(stdout);
  report("prompt", given.size(), prefill_seconds);
  report("text", passes - given.size(), decode_seconds);
  report(nll);
}

void generate(options const& o) {
  llama2 const model(o.model);
  tokenizer const tokens(o.tokenizer, model.shape().vocabulary);
  auto const& shape = model.shape();
  position_scheme const& scheme = find_scheme(o.rope);
  heed::index const window = o.window > 0 ? o.window : usual_window(scheme, shape.train_len);
  team workers(o.threads);
  position_code const code =
      scheme.make({shape.head_dim(), shape.train_len, std::round(o.factor * shape.train_len), window});
  transformer llama(model, attend_with(code, o.log_n, shape.train_len, workers.executor(), o.in_bytes()), o.steps);
  write_text(o, llama, tokens);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Writes text with a llama2.c model on heed's attention.", "generate");
  options o;
  declare(app, o);
  return run_program(app, argc, argv, [&] { generate(o); });
}
