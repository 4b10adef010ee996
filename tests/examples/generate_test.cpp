#include "../../examples/support/attend.hpp"
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

rope_scheme const& scheme(std::string_view name) { return *std::ranges::find(rope_schemes, name, &rope_scheme::name); }

transformer make_transformer(llama2 const& model, std::string_view rope = "standard", double factor = 1,
                             bool log_n = false) {
  static heed::inline_executor here;
  auto const& shape = model.shape();
  return {model,
          attend_rotary(scheme(rope).make(shape.head_dim(), shape.train_len, factor), log_n, shape.train_len, here)};
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

reals naive_rotated(reals const& x, Eigen::Index head_dim) {
  reals y = x;
  for (Eigen::Index i = 0; i < x.rows(); ++i)
    for (Eigen::Index c = 0; c < x.cols(); c += 2) {
      double const angle = static_cast<double>(i) *
                           std::pow(10000.0, -static_cast<double>(c % head_dim) / static_cast<double>(head_dim));
      y(i, c) = x(i, c) * std::cos(angle) - x(i, c + 1) * std::sin(angle);
      y(i, c + 1) = x(i, c + 1) * std::cos(angle) + x(i, c) * std::sin(angle);
    }
  return y;
}

reals naive_attention(llama2_shape const& s, reals const& q, reals const& k, reals const& v) {
  reals out = reals::Zero(q.rows(), q.cols());
  Eigen::Index const dim = s.head_dim();
  for (Eigen::Index h = 0; h < s.heads_q; ++h) {
    Eigen::Index const g = h / (s.heads_q / s.heads_kv);
    for (Eigen::Index i = 0; i < q.rows(); ++i) {
      Eigen::RowVectorXd weights(i + 1);
      for (Eigen::Index j = 0; j <= i; ++j)
        weights[j] = std::exp(q.row(i).segment(h * dim, dim).dot(k.row(j).segment(g * dim, dim)) /
                              std::sqrt(static_cast<double>(dim)));
      out.row(i).segment(h * dim, dim) = weights / weights.sum() * v.block(0, g * dim, i + 1, dim);
    }
  }
  return out;
}

reals naive_logits(llama2 const& model, std::vector<int> const& tokens) {
  auto const times = [](reals const& x, weight_matrix const& w) -> reals { return x * w.cast<double>().transpose(); };
  auto const& s = model.shape();
  reals x(static_cast<Eigen::Index>(tokens.size()), s.dim);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    x.row(static_cast<Eigen::Index>(i)) = model.embedding().row(tokens[i]).cast<double>();
  for (llama2_layer const& layer : model.layers()) {
    reals const a = naive_norm(x, layer.attention_norm);
    x += times(naive_attention(s, naive_rotated(times(a, layer.wq), s.head_dim()),
                               naive_rotated(times(a, layer.wk), s.head_dim()), times(a, layer.wv)),
               layer.wo);
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
  transformer llama = make_transformer(model);
  reals const expected = naive_logits(model, input);
  matrix const logits = llama.logits(llama.forward(input));
  // Logits reach about 20: some ten float roundings.
  CHECK((logits.cast<double>() - expected).cwiseAbs().maxCoeff() < 2e-4);
}

TEST_CASE("prefill and decode give the same logits also beyond the training length", "[identities]") {
  if (!model_is_here())
    return;
  llama2 const model(model_path);
  auto const input = some_tokens(tokenizer(tokenizer_path, model.shape().vocabulary), 540);
  std::span<int const> const all = input;
  for (auto const& [rope, factor, log_n] : {std::tuple{"standard", 1.0, false}, std::tuple{"yarn", 4.0, true}}) {
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

TEST_CASE("at factor 1 every rope scheme is the standard one and at factor 4 none is", "[identities]") {
  if (!model_is_here())
    return;
  llama2 const model(model_path);
  auto const input = some_tokens(tokenizer(tokenizer_path, model.shape().vocabulary), 520);
  transformer standard = make_transformer(model);
  matrix const expected = standard.forward(input);
  for (rope_scheme const& s : rope_schemes) {
    INFO("rope " << s.name);
    transformer at_one = make_transformer(model, s.name, 1);
    CHECK(at_one.forward(input) == expected);
    if (s.name == "standard")
      continue;
    transformer stretched = make_transformer(model, s.name, 4);
    CHECK(difference(stretched.forward(input), expected) > 0.01);
  }
}

TEST_CASE("log-n acts beyond the training length only", "[identities]") {
  if (!model_is_here())
    return;
  llama2 const model(model_path);
  auto const input = some_tokens(tokenizer(tokenizer_path, model.shape().vocabulary), 520);
  transformer standard = make_transformer(model);
  matrix const expected = standard.forward(input);
  transformer sharpened = make_transformer(model, "standard", 1, true);
  matrix const beyond = sharpened.forward(input);
  CHECK(beyond.topRows(512) == expected.topRows(512));
  CHECK(beyond.bottomRows(8) != expected.bottomRows(8));
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
