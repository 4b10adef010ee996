#include "../../examples/support/attend.hpp"
#include "../../examples/support/loss.hpp"
#include "../../examples/support/tokenizer.hpp"

#include "support/catch.hpp"

#include <heed/core/executor.hpp>

#include <filesystem>
#include <unistd.h>

namespace {

using heed::test::ContainsSubstring;

using namespace example;

std::string const model_path = std::string(HEED_MODEL_DIR) + "/stories260K.bin";
std::string const tokenizer_path = std::string(HEED_MODEL_DIR) + "/tok512.bin";

bool model_is_here() {
  bool const here = std::filesystem::exists(model_path) && std::filesystem::exists(tokenizer_path);
  if (!here)
    WARN("skipped: no stories260K.bin and tok512.bin in " HEED_MODEL_DIR);
  return here;
}

position_settings settings_for(llama2 const& model, double factor = 1, heed::index window = 0) {
  auto const& shape = model.shape();
  return {shape.head_dim(), shape.train_len, factor * shape.train_len, window};
}

transformer make_transformer(llama2 const& model, std::string_view name = "standard", double factor = 1,
                             bool log_n = false, heed::index window = 64) {
  static heed::inline_executor here;
  position_code const code = find_scheme(name).make(settings_for(model, factor, window));
  return {model, attend_with(code, log_n, model.shape().train_len, here), 600};
}

/// BOS and then tokens of a text.
std::vector<int> some_tokens(tokenizer const& tokens, std::size_t count) {
  std::vector<int> result{tokenizer::bos};
  while (result.size() < count)
    std::ranges::copy(tokens.encode(" One day, a little cat named Tom found a big red ball in the park."),
                      std::back_inserter(result));
  result.resize(count);
  return result;
}

double difference(matrix const& a, matrix const& b) { return static_cast<double>((a - b).cwiseAbs().maxCoeff()); }

// --- the same model once more, in double, written as the formulas ----------------------------------------------------

using reals = Eigen::MatrixXd;

reals naive_norm(reals const& x, weight_row const& gain) {
  reals y = x;
  for (Eigen::Index i = 0; i < x.rows(); ++i)
    y.row(i) = (x.row(i) / std::sqrt(x.row(i).squaredNorm() / static_cast<double>(x.cols()) + 1e-5))
                   .cwiseProduct(gain.cast<double>());
  return y;
}

/// q · R(−distance) k, pairs of channels side by side.
double naive_score(Eigen::RowVectorXd const& q, Eigen::RowVectorXd const& k, Eigen::ArrayXd const& theta,
                   double distance) {
  double score = 0;
  for (Eigen::Index t = 0; t < theta.size(); ++t) {
    double const q0 = q[2 * t], q1 = q[2 * t + 1], k0 = k[2 * t], k1 = k[2 * t + 1], angle = distance * theta[t];
    score += (q0 * k0 + q1 * k1) * std::cos(angle) + (q0 * k1 - q1 * k0) * std::sin(angle);
  }
  return score;
}

/// The distance at which query i sees key j; negative: not at all.
using distance_rule = std::function<double(Eigen::Index i, Eigen::Index j)>;

reals naive_attention(llama2_shape const& s, distance_rule const& distance, reals const& q, reals const& k,
                      reals const& v) {
  reals out = reals::Zero(q.rows(), q.cols());
  Eigen::Index const dim = s.head_dim();
  Eigen::ArrayXd theta(dim / 2);
  for (Eigen::Index t = 0; t < dim / 2; ++t)
    theta[t] = std::pow(10000.0, -2 * static_cast<double>(t) / static_cast<double>(dim));
  for (Eigen::Index h = 0; h < s.heads_q; ++h) {
    Eigen::Index const g = h / (s.heads_q / s.heads_kv);
    for (Eigen::Index i = 0; i < q.rows(); ++i) {
      Eigen::RowVectorXd weights = Eigen::RowVectorXd::Zero(i + 1);
      for (Eigen::Index j = 0; j <= i; ++j)
        if (double const d = distance(i, j); d >= 0)
          weights[j] = std::exp(naive_score(q.row(i).segment(h * dim, dim), k.row(j).segment(g * dim, dim), theta, d) /
                                std::sqrt(static_cast<double>(dim)));
      out.row(i).segment(h * dim, dim) = weights / weights.sum() * v.block(0, g * dim, i + 1, dim);
    }
  }
  return out;
}

reals naive_logits(llama2 const& model, std::vector<int> const& tokens, distance_rule const& distance) {
  auto const times = [](reals const& x, weight_matrix const& w) -> reals { return x * w.cast<double>().transpose(); };
  auto const& s = model.shape();
  reals x(static_cast<Eigen::Index>(tokens.size()), s.dim);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    x.row(static_cast<Eigen::Index>(i)) = model.embedding().row(tokens[i]).cast<double>();
  for (llama2_layer const& layer : model.layers()) {
    reals const a = naive_norm(x, layer.attention_norm);
    x += times(naive_attention(s, distance, times(a, layer.wq), times(a, layer.wk), times(a, layer.wv)), layer.wo);
    reals const f = naive_norm(x, layer.feed_forward_norm);
    reals const up = times(f, layer.w1);
    x += times((up.array() / (1 + (-up.array()).exp()) * times(f, layer.w3).array()).matrix(), layer.w2);
  }
  return times(naive_norm(x, model.final_norm()), model.output());
}

// --- files of our own ------------------------------------------------------------------------------------------------

class temporary_file {
 public:
  explicit temporary_file(std::vector<char> const& bytes)
      : path_((std::filesystem::temp_directory_path() / ("heed_examples_" + std::to_string(::getpid()))).string()) {
    std::ofstream(path_, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  temporary_file(temporary_file const&) = delete;
  ~temporary_file() { std::filesystem::remove(path_); }
  std::string const& path() const { return path_; }

 private:
  std::string path_;
};

template <class Load>
std::string refusal(Load load) {
  try {
    load();
  } catch (file_error const& error) {
    return error.what();
  }
  return "not refused";
}

std::string model_refusal(std::vector<char> const& bytes) {
  temporary_file const file(bytes);
  return refusal([&] { llama2 const model(file.path()); });
}

std::string tokenizer_refusal(std::vector<char> const& bytes, int vocabulary = 512) {
  temporary_file const file(bytes);
  return refusal([&] { tokenizer const tokens(file.path(), vocabulary); });
}

template <class Number>
std::vector<char> with(std::vector<char> bytes, std::size_t at, Number value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
  return bytes;
}

}  // namespace

TEST_CASE("the model writes the text it is known for", "[contract]") {
  if (!model_is_here())
    return;
  llama2 const model(model_path);
  tokenizer const tokens(tokenizer_path, model.shape().vocabulary);
  transformer llama = make_transformer(model);
  std::string text;
  for (int step = 0, token = tokenizer::bos; step < 60; ++step) {
    Eigen::Index next = 0;
    llama.logits(llama.forward({&token, 1})).row(0).maxCoeff(&next);
    text += tokens.decode(token, static_cast<int>(next));
    token = static_cast<int>(next);
  }
  REQUIRE(
      text.starts_with("Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
                       "One day, she saw a big, red ball. She"));
}

TEST_CASE("logits are those of the formulas in double", "[reference]") {
  if (!model_is_here())
    return;
  llama2 const model(model_path);
  auto const input = some_tokens(tokenizer(tokenizer_path, model.shape().vocabulary), 530);
  auto const rel = [](Eigen::Index i, Eigen::Index j) { return static_cast<double>(i - j); };
  // Window 64, length 4 · 512: beyond the window (2048 − 1 − 64) / (512 − 1 − 64), rounded up, positions count as one.
  Eigen::Index const w = 64, slowdown = 5;
  CHECK(far_slowdown(settings_for(model, 4, w)) == slowdown);
  auto const grouped = [](Eigen::Index i, Eigen::Index j) { return i / slowdown - j / slowdown + w - w / slowdown; };
  struct {
    std::string_view name;
    distance_rule distance;
  } const schemes[] = {
      {"standard", rel},
      {"rerope", [&](auto i, auto j) { return std::min(rel(i, j), 64.0); }},
      {"leaky_rerope", [&](auto i, auto j) { return i - j < w ? rel(i, j) : 64 + (rel(i, j) - 64) / 5; }},
      {"self_extend", [&](auto i, auto j) { return i - j < w ? rel(i, j) : static_cast<double>(grouped(i, j)); }},
      {"window", [&](auto i, auto j) { return i - j < w ? rel(i, j) : -1; }},
  };
  for (auto const& scheme : schemes) {
    INFO("rope " << scheme.name);
    bool const beyond_training = scheme.name == "standard";
    std::vector<int> const tokens(input.begin(), input.begin() + (beyond_training ? 530 : 200));
    transformer llama = make_transformer(model, scheme.name, 4, false, w);
    matrix const logits = llama.logits(llama.forward(tokens));
    // Logits reach about 20: some ten float roundings.
    CHECK((logits.cast<double>() - naive_logits(model, tokens, scheme.distance)).cwiseAbs().maxCoeff() < 2e-4);
  }
}

TEST_CASE("prefill and decode give the same logits also beyond the training length", "[identities]") {
  if (!model_is_here())
    return;
  llama2 const model(model_path);
  auto const input = some_tokens(tokenizer(tokenizer_path, model.shape().vocabulary), 540);
  std::span<int const> const all = input;
  for (auto const& [rope, factor, log_n] : {std::tuple{"standard", 1.0, false}, std::tuple{"yarn", 4.0, true},
                                            std::tuple{"rerope", 4.0, true}, std::tuple{"leaky_rerope", 4.0, false},
                                            std::tuple{"self_extend", 4.0, false}, std::tuple{"window", 4.0, false}}) {
    INFO("rope " << rope);
    transformer at_once = make_transformer(model, rope, factor, log_n);
    transformer in_parts = make_transformer(model, rope, factor, log_n);
    matrix const expected = at_once.logits(at_once.forward(all));
    CHECK(difference(in_parts.logits(in_parts.forward(all.first(200))), expected.topRows(200)) < 2e-4);
    CHECK(difference(in_parts.logits(in_parts.forward(all.subspan(200, 300))), expected.middleRows(200, 300)) < 2e-4);
    for (Eigen::Index i = 500; i < 540; ++i)
      CHECK(difference(in_parts.logits(in_parts.forward(all.subspan(static_cast<std::size_t>(i), 1))),
                       expected.row(i)) < 2e-4);
  }
}

TEST_CASE("at factor 1 every scaled scheme is the standard one and at factor 4 none is", "[identities]") {
  if (!model_is_here())
    return;
  llama2 const model(model_path);
  auto const input = some_tokens(tokenizer(tokenizer_path, model.shape().vocabulary), 520);
  transformer standard = make_transformer(model);
  matrix const expected = standard.forward(input);
  for (position_scheme const& s : position_schemes) {
    if (s.has_window || s.name == "standard")
      continue;
    INFO("rope " << s.name);
    transformer at_one = make_transformer(model, s.name, 1);
    CHECK(at_one.forward(input) == expected);
    transformer stretched = make_transformer(model, s.name, 4);
    CHECK(difference(stretched.forward(input), expected) > 0.01);
  }
}

TEST_CASE("schemes with a window are the standard one inside it and another one beyond", "[identities]") {
  if (!model_is_here())
    return;
  llama2 const model(model_path);
  auto const input = some_tokens(tokenizer(tokenizer_path, model.shape().vocabulary), 520);
  transformer standard = make_transformer(model);
  matrix const expected = standard.forward(input);
  for (position_scheme const& s : position_schemes) {
    if (!s.has_window)
      continue;
    INFO("rope " << s.name);
    transformer wide = make_transformer(model, s.name, 4, false, 600);
    CHECK(difference(wide.forward(input), expected) < 2e-5);
    transformer narrow = make_transformer(model, s.name, 4, false, 128);
    matrix const hidden = narrow.forward(input);
    CHECK(difference(hidden.topRows(128), expected.topRows(128)) < 2e-5);
    CHECK(difference(hidden.bottomRows(8), expected.bottomRows(8)) > 1e-3);
  }
}

TEST_CASE("far positions go as slow as the training length asks for", "[edges]") {
  CHECK(far_slowdown({8, 512, 2048, 256}) == 8);  // (2047 − 256) / (511 − 256) = 7.02
  CHECK(far_slowdown({8, 512, 512, 256}) == 1);   // nothing to slow down
  CHECK(far_slowdown({8, 512, 100, 256}) == 1);
  CHECK(far_slowdown({8, 512, 767, 256}) == 2);  // the farthest: 256 + 510 / 2 = 511
  CHECK(far_slowdown({8, 512, 768, 256}) == 3);
  CHECK(far_slowdown({8, 512, 2048, 600}) == 1447);  // no room: one step at most
  CHECK(usual_window(find_scheme("rerope"), 512) == 256);
  CHECK(usual_window(find_scheme("window"), 512) == 512);
  CHECK(usual_window(find_scheme("rerope"), 1) == 1);
}

TEST_CASE("log-n acts beyond the training length only", "[identities]") {
  if (!model_is_here())
    return;
  llama2 const model(model_path);
  auto const input = some_tokens(tokenizer(tokenizer_path, model.shape().vocabulary), 520);
  for (char const* rope : {"standard", "rerope"}) {
    INFO("rope " << rope);
    transformer plain = make_transformer(model, rope);
    matrix const expected = plain.forward(input);
    transformer sharpened = make_transformer(model, rope, 1, true);
    matrix const beyond = sharpened.forward(input);
    CHECK(beyond.topRows(512) == expected.topRows(512));
    CHECK(beyond.bottomRows(8) != expected.bottomRows(8));
  }
}

TEST_CASE("with ReRoPE the model reads on beyond its training length", "[contract]") {
  std::string const path = std::string(HEED_TEXT_DIR) + "/tinystories.txt";
  if (!model_is_here())
    return;
  if (!std::filesystem::exists(path)) {
    WARN("skipped: no " + path);
    return;
  }
  llama2 const model(model_path);
  auto const text = read_file(path);
  auto input = tokenizer(tokenizer_path, model.shape().vocabulary).encode({text.data(), 6000});
  REQUIRE(input.size() > 1500);
  input.resize(1500);
  input.front() = tokenizer::bos;
  auto const loss = [&](std::string_view rope, Eigen::Index first, Eigen::Index last) {
    static heed::inline_executor here;
    position_code const code = find_scheme(rope).make(settings_for(model, 3, 256));
    transformer llama(model, attend_with(code, false, model.shape().train_len, here), 1500);
    matrix const logits = llama.logits(llama.forward(input));
    double sum = 0;
    for (Eigen::Index i = first; i < last; ++i)
      sum += negative_log_likelihood(logits.row(i), input[static_cast<std::size_t>(i) + 1]);
    return sum / static_cast<double>(last - first);
  };
  double const inside = loss("rerope", 0, 512), beyond = loss("rerope", 1000, 1499);
  CHECK(beyond < inside + 0.1);
  CHECK(loss("standard", 1000, 1499) > beyond + 0.1);
}

TEST_CASE("losses are filed by position", "[contract]") {
  CHECK(range_edges(2048) == std::vector<int>{0, 256, 512, 768, 1024, 1536, 2048});
  CHECK(range_edges(1500) == std::vector<int>{0, 256, 512, 768, 1024, 1500});
  CHECK(range_edges(257) == std::vector<int>{0, 257});  // position 256 foretells nothing
  CHECK(range_edges(258) == std::vector<int>{0, 256, 258});
  CHECK(range_edges(1) == std::vector<int>{0, 1});
  range_means means(range_edges(600));
  means.add(256, 1);
  means.add(511, 2);
  means.add(512, 7);
  CHECK(means.size() == 3);
  CHECK(means.empty(0));
  CHECK(means.mean(1) == 1.5);
  CHECK(means.mean(2) == 7);
  CHECK(means.name(2) == "512-600");
  Eigen::RowVectorXf const logits = Eigen::RowVectorXf::LinSpaced(3, 1000, 1002);
  CHECK(std::abs(negative_log_likelihood(logits, 1) - std::log(std::exp(-1.0) + 1 + std::exp(1.0))) < 1e-12);
}

TEST_CASE("text goes to tokens and back", "[contract]") {
  if (!model_is_here())
    return;
  tokenizer const tokens(tokenizer_path, 512);
  CHECK(tokens.encode(" Once upon a time") == std::vector<int>{403, 407, 261, 378});
  CHECK(tokens.encode(" Lily wanted to share the needle with her mom.") ==
        std::vector<int>{317, 391, 266, 267, 262, 415, 412, 276, 265, 404, 266, 305, 335, 311, 357, 426});
  CHECK(tokens.encode("").empty());
  for (std::string const text : {" Lily said, \"I'm here!\"\n\n", " naïve café €5 \x01\xff\xfe", " <0x41>"}) {
    std::string back;
    int previous = tokenizer::bos;
    for (int token : tokens.encode(text)) {
      back += tokens.decode(previous, token);
      previous = token;
    }
    CHECK(" " + back == text);
  }
}

TEST_CASE("damaged files are refused by name", "[errors]") {
  if (!model_is_here())
    return;
  auto const good = read_file(model_path);
  auto const cut = [](std::vector<char> bytes, std::size_t size) {
    bytes.resize(size);
    return bytes;
  };
  CHECK(refusal([] { llama2 const model("no_such_file"); }) == "cannot read no_such_file");
  CHECK(refusal([] { llama2 const model("."); }) == "cannot read .");
  CHECK_THAT(model_refusal({}), ContainsSubstring("is not a llama2.c model: it has 0 bytes"));
  CHECK_THAT(model_refusal(cut(good, 27)), ContainsSubstring("is not a llama2.c model: it has 27 bytes"));
  CHECK_THAT(model_refusal(cut(good, 28)),
             ContainsSubstring("is damaged: its header asks for 1056540 bytes, it has 28"));
  CHECK_THAT(model_refusal(cut(good, good.size() - 1)), ContainsSubstring("it has 1056539"));
  CHECK_THAT(model_refusal(cut(good, good.size() + 1)), ContainsSubstring("it has 1056541"));
  std::int32_t const senseless[] = {0, -1, 63, 1 << 30, std::numeric_limits<std::int32_t>::min()};
  for (std::int32_t value : senseless)
    CHECK_THAT(model_refusal(with(good, 0, value)), ContainsSubstring("its header makes no sense"));
  CHECK_THAT(model_refusal(with(good, 16, 3)), ContainsSubstring("its header makes no sense"));
  CHECK_THAT(model_refusal(with(good, 20, std::numeric_limits<std::int32_t>::min())),
             ContainsSubstring("its header makes no sense"));
  CHECK_THAT(model_refusal(with(good, 8, 6)), ContainsSubstring("is damaged"));
  CHECK_THAT(model_refusal(with(good, 5000, std::numeric_limits<float>::quiet_NaN())), ContainsSubstring("not finite"));

  auto const words = read_file(tokenizer_path);
  CHECK_THAT(tokenizer_refusal({}), ContainsSubstring("it ends too early"));
  CHECK_THAT(tokenizer_refusal(cut(words, words.size() - 1)), ContainsSubstring("it ends too early"));
  CHECK_THAT(tokenizer_refusal(cut(words, words.size() + 1)), ContainsSubstring("more than the model's 512 tokens"));
  CHECK_THAT(tokenizer_refusal(words, 513), ContainsSubstring("it ends too early"));
  CHECK_THAT(tokenizer_refusal(words, 511), ContainsSubstring("more than the model's 511 tokens"));
  CHECK_THAT(tokenizer_refusal(with(words, 8, std::int32_t{-5})), ContainsSubstring("token 0 makes no sense"));
  CHECK_THAT(tokenizer_refusal(good), ContainsSubstring("is not a tokenizer for this model"));
}

TEST_CASE("a model with an output matrix of its own is read", "[contract]") {
  if (!model_is_here())
    return;
  llama2 const tied(model_path);
  auto bytes = with(read_file(model_path), 20, std::int32_t{-512});
  matrix const output = 2 * tied.output();
  auto const* first = reinterpret_cast<char const*>(output.data());
  bytes.insert(bytes.end(), first, first + output.size() * 4);
  temporary_file const file(bytes);
  llama2 const untied(file.path());
  CHECK(untied.shape().vocabulary == 512);
  CHECK(untied.output() == output);
  CHECK(untied.embedding() == tied.embedding());
}
