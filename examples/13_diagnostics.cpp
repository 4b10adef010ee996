// One idea: longer contexts blur attention, and one can watch it. Entropy of attention rows against length, plain
// beside log-n, of a real model's queries and keys:
//
//     13_diagnostics --model stories260K.bin --tokenizer tok512.bin --text stories.txt --csv entropy.csv
//     plot_diagnostics.py entropy.csv entropy.png
//
// Without these files, and where the project's own are missing, rows are random.

#include "support/attend.hpp"
#include "support/tokenizer.hpp"

#include <heed/diagnostics/sparsity.hpp>

#include <cstdio>
#include <filesystem>
#include <map>

namespace {

using heed::index;

/// Queries and keys of one layer over one window of text, as they were projected: not turned yet.
struct layer_rows {
  heed::tensor<float, 3> q, k;  // [heads_q, len, dim], [heads_kv, len, dim]
};

struct sample {
  std::vector<layer_rows> layers;
  heed::rerope code;  // keeps far keys at distances that the model knows
  index train_len, length;
};

/// Means over the last 64 rows of every head.
struct summary {
  double entropy, support;
};

heed::tensor<float, 3> copy_of(heed::view<float const, 3> const& x) {
  heed::tensor<float, 3> copy(x.extents());
  for (index h = 0; h < x.extent(0); ++h)
    copy.matrix(h) = x.matrix(h);
  return copy;
}

/// What the layers ask and answer while the model reads `windows` times `length` tokens of a text: BOS and a paragraph,
/// BOS and a paragraph …
sample read_text(std::map<std::string, std::string> const& files, index length, index windows) {
  example::llama2 const model(files.at("--model"));
  auto const& shape = model.shape();
  example::tokenizer const tokens(files.at("--tokenizer"), shape.vocabulary);
  std::vector<char> const bytes = example::read_file(files.at("--text"));
  std::string_view text(bytes.data(), bytes.size());
  std::vector<int> stream;
  while (static_cast<index>(stream.size()) < length * windows && !text.empty()) {
    auto const end = std::min(text.find("\n\n"), text.size());
    stream.push_back(example::tokenizer::bos);
    std::ranges::copy(tokens.encode(" " + std::string(text.substr(0, end))), std::back_inserter(stream));
    text.remove_prefix(std::min(end + 2, text.size()));
  }
  if (static_cast<index>(stream.size()) < length * windows)
    throw example::file_error(files.at("--text") + " is too short");

  heed::rotary const rope{heed::frequencies::standard(shape.head_dim()), heed::layout::interleaved};
  sample s{{}, heed::rerope{rope, shape.train_len / 2}, shape.train_len, length};
  example::attention_way const way{
      [&](index heads, index dim, index capacity) { return heed::kv_cache<float>(heads, dim, dim, capacity, s.code); },
      [&](auto const& q, example::key_cache const& any, auto const& out) {
        auto const& cache = std::get<heed::kv_cache<float>>(any);
        s.layers.push_back({copy_of(q), copy_of(cache.keys())});  // ReRoPE's cache keeps keys as they came
        heed::attention(q, cache, out, heed::causal{});
      }};
  for (index w = 0; w < windows; ++w)
    example::transformer(model, way, length)
        .forward(std::span(stream).subspan(static_cast<std::size_t>(w * length), static_cast<std::size_t>(length)));
  return s;
}

/// Gaussian-like scores of deviation 1.9: sums of 64 products.
sample random_rows(index length) {
  heed::rotary const rope{heed::frequencies::standard(64), heed::layout::half};
  sample s{{}, heed::rerope{rope, 256}, 512, length};
  std::srand(5);
  layer_rows rows{heed::tensor<float, 3>({2, length, 64}), heed::tensor<float, 3>({2, length, 64})};
  for (index h = 0; h < 2; ++h) {
    rows.q.matrix(h) = 2.4f * example::matrix::Random(length, 64);
    rows.k.matrix(h) = 2.4f * example::matrix::Random(length, 64);
  }
  s.layers.push_back(std::move(rows));
  return s;
}

/// The last 64 of the first n tokens over all that they see: entropy from the kernel, support from the weights, which
/// the identity for values hands out.
template <class... Modifiers>
summary look(sample const& s, layer_rows const& layer, index n, Modifiers const&... modifiers) {
  index const rows = 64, heads = layer.q.extent(0), dim = layer.q.extent(2);
  heed::view<float const, 3> const q(&layer.q(0, n - rows, 0), {heads, rows, dim}, layer.q.strides());
  heed::view<float const, 3> const k(layer.k.data(), {layer.k.extent(0), n, dim}, layer.k.strides());
  example::matrix const identity = example::matrix::Identity(n, n);
  heed::view<float const, 3> const values(identity.data(), {layer.k.extent(0), n, n}, {0, n, 1});  // one for all heads
  heed::tensor<float, 3> weights({heads, rows, n});
  heed::tensor<float, 2> entropies({heads, rows});
  heed::attention(q, k, values, weights, heed::causal{}, s.code, heed::entropy{entropies}, modifiers...);
  summary mean{0, 0};
  auto const all = static_cast<double>(heads * rows);
  for (index h = 0; h < heads; ++h)
    for (index i = 0; i < rows; ++i) {
      mean.entropy += static_cast<double>(entropies(h, i)) / all;
      mean.support += heed::sparsity::effective_support(weights.matrix(h).row(i)) / all;
    }
  return mean;
}

/// `--name FILE` pairs over the project's own files, where those are there.
std::map<std::string, std::string> files_of(int count, char** arguments) {
  std::map<std::string, std::string> files{{"--model", HEED_MODEL_DIR "/stories260K.bin"},
                                           {"--tokenizer", HEED_MODEL_DIR "/tok512.bin"},
                                           {"--text", HEED_TEXT_DIR "/tinystories.txt"}};
  for (int i = 1; i + 1 < count; i += 2)
    files[arguments[i]] = arguments[i + 1];
  return files;
}

void run(std::map<std::string, std::string> const& files) {
  bool const there = std::filesystem::exists(files.at("--model")) && std::filesystem::exists(files.at("--tokenizer")) &&
                     std::filesystem::exists(files.at("--text"));
  if (!there)
    std::fprintf(stderr, "13_diagnostics: no model, tokenizer and text: rows are random\n");
  sample const s = there ? read_text(files, 2048, 4) : random_rows(2048);

  std::FILE* const csv = files.count("--csv") ? std::fopen(files.at("--csv").c_str(), "w") : nullptr;
  if (files.count("--csv") && csv == nullptr)
    throw example::file_error("cannot write " + files.at("--csv"));
  if (csv)
    std::fprintf(csv, "length,plain,log_n,ceiling,trained\n");
  std::printf("%zu times %td heads of %s\n\n", s.layers.size(), s.layers[0].q.extent(0),
              there ? files.at("--model").c_str() : "random rows");
  std::printf(
      "            entropy in nats             keys that share the row\nlength    plain   log_n   ln n            "
      "plain   log_n\n");
  for (index n = 64; n <= s.length; n *= 2) {
    summary plain{0, 0}, scaled{0, 0};
    auto const share = 1 / static_cast<double>(s.layers.size());
    for (layer_rows const& layer : s.layers) {
      summary const a = look(s, layer, n), b = look(s, layer, n, heed::log_n{s.train_len});
      plain = {plain.entropy + share * a.entropy, plain.support + share * a.support};
      scaled = {scaled.entropy + share * b.entropy, scaled.support + share * b.support};
    }
    double const ceiling = std::log(static_cast<double>(n));
    std::printf("%6td   %6.2f  %6.2f  %5.2f           %6.0f  %6.0f\n", n, plain.entropy, scaled.entropy, ceiling,
                plain.support, scaled.support);
    if (csv)
      std::fprintf(csv, "%td,%.4f,%.4f,%.4f,%td\n", n, plain.entropy, scaled.entropy, ceiling, s.train_len);
  }
  if (csv)
    std::fclose(csv);
  std::printf(
      "\nPlain attention spreads with every doubling; scores times ln n / ln %td hold it back beyond %td keys.\n",
      s.train_len, s.train_len);
}

}  // namespace

int main(int count, char** arguments) {
  try {
    run(files_of(count, arguments));
  } catch (std::exception const& error) {
    std::fprintf(stderr, "13_diagnostics: %s\n", error.what());
    return 1;
  }
}
