// Writes text with a llama2.c model: heed attends and rotates, Eigen multiplies the matrices.

#include "support/command_line.hpp"

#include <chrono>
#include <random>

namespace {

using namespace example;

struct options : common_options {
  int steps = 256;
  double temperature = 0;
  std::string prompt;
  std::string rope = "standard";
  double factor = 4;
  bool log_n = false;
  std::uint64_t seed = 0;
  bool ignore_end = false;
};

void declare(CLI::App& app, options& o) {
  o.add_to(app);
  app.add_option("--steps", o.steps, "Length of the text in tokens, the prompt's included")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  app.add_option("--temperature", o.temperature, "How freely to draw; 0 takes the likeliest token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  app.add_option("--prompt", o.prompt, "Text to go on from");
  app.add_option("--rope", o.rope, "How rotary frequencies are scaled")
      ->check(CLI::IsMember({"standard", "linear", "ntk_aware", "ntk_mixed", "yarn"}))
      ->capture_default_str();
  app.add_option("--factor", o.factor, "Context over training length, for scaled --rope")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  app.add_flag("--log-n", o.log_n, "Sharpen attention beyond the training length");
  app.add_option("--seed", o.seed, "Of the draws, for --temperature above 0")->capture_default_str();
  app.add_flag("--ignore-end", o.ignore_end, "Go on after the end of a text");
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
  stopwatch const decode;
  std::size_t passes = given.size();
  while (prompt.size() <= steps) {
    int const next = sample(llama.logits(hidden.bottomRows(1)).row(0));
    if (next == tokenizer::bos && !o.ignore_end)
      break;
    print(next);
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
}

void generate(options const& o) {
  llama2 const model(o.model);
  tokenizer const tokens(o.tokenizer, model.shape().vocabulary);
  auto const& shape = model.shape();
  auto const* scheme = std::ranges::find(rope_schemes, o.rope, &rope_scheme::name);
  team workers(o.threads);
  transformer llama(model, attend_rotary(scheme->make(shape.head_dim(), shape.train_len, o.factor), o.log_n,
                                         shape.train_len, workers.executor()));
  write_text(o, llama, tokens);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Writes text with a llama2.c model on heed's attention.", "generate");
  options o;
  declare(app, o);
  return run_program(app, argc, argv, [&] { generate(o); });
}
