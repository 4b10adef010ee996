#pragma once

#include <heed/core/view.hpp>

#include <algorithm>
#include <array>

/// Shapes of attention calls: those of well-known models, and plain squares that show the kernel alone.

namespace bench {

enum class visible { full, causal, window };

constexpr char const* name_of(visible v) {
  return v == visible::full ? "full" : v == visible::causal ? "causal" : "window";
}

/// One call. Queries are the last rows: query i stands at kv_len − q_len + i.
struct shape {
  char const* name;
  heed::index heads_q, heads_kv, q_len, kv_len, dim;
  heed::index window = 0;  // keys that a query sees under `visible::window`, itself included

  /// Keys before `begin` and from `end` on are hidden from query i.
  constexpr heed::index begin(visible v, heed::index i) const {
    return v == visible::window ? std::max<heed::index>(0, kv_len - q_len + i + 1 - window) : 0;
  }
  constexpr heed::index end(visible v, heed::index i) const {
    return v == visible::full ? kv_len : std::min(kv_len, kv_len - q_len + i + 1);
  }

  /// 4 · visible pairs · dim, over all query heads: what is hidden is not counted as work.
  constexpr double flops(visible v) const {
    double pairs = 0;
    for (heed::index i = 0; i < q_len; ++i)
      pairs += static_cast<double>(std::max<heed::index>(0, end(v, i) - begin(v, i)));
    return 4 * pairs * static_cast<double>(dim) * static_cast<double>(heads_q);
  }
};

/// One head, as many keys as queries.
inline constexpr std::array squares{
    shape{"dim64_2048", 1, 1, 2048, 2048, 64, 256}, shape{"dim128_2048", 1, 1, 2048, 2048, 128, 256},
    shape{"dim64_512", 1, 1, 512, 512, 64, 128},    shape{"dim128_512", 1, 1, 512, 512, 128, 128},
    shape{"dim64_128", 1, 1, 128, 128, 64, 64},     shape{"dim128_128", 1, 1, 128, 128, 128, 64},
};

/// Head sizes that are no power of two or large, grouped heads, and a window in a long sequence.
inline constexpr std::array further{
    shape{"dim80_2048", 1, 1, 2048, 2048, 80},   shape{"dim96_2048", 1, 1, 2048, 2048, 96},
    shape{"dim111_2048", 1, 1, 2048, 2048, 111}, shape{"dim256_2048", 1, 1, 2048, 2048, 256},
    shape{"32on8_1024", 32, 8, 1024, 1024, 128},
};
inline constexpr std::array windows{
    shape{"dim64_8192", 1, 1, 8192, 8192, 64, 1024},
    shape{"dim128_8192", 1, 1, 8192, 8192, 128, 1024},
};

struct model {
  shape call;
  visible sees;
};

/// Prompts of models, all heads of one layer.
inline constexpr std::array models{
    // name, heads_q, heads_kv, q_len, kv_len, dim, window
    model{{"stories260k", 8, 4, 512, 512, 8}, visible::causal},           // llama2.c's smallest
    model{{"gpt2", 12, 12, 1024, 1024, 64}, visible::causal},             // 124M, full context
    model{{"minilm_l6", 12, 12, 128, 128, 32}, visible::full},            // a sentence to embed
    model{{"bert_base", 12, 12, 512, 512, 64}, visible::full},            //
    model{{"sd15_cross", 8, 8, 4096, 77, 40}, visible::full},             // an image's 64 × 64 places, a prompt's words
    model{{"vit_b16", 12, 12, 197, 197, 64}, visible::full},              // 14 × 14 patches and the class token
    model{{"whisper_small", 12, 12, 1500, 1500, 64}, visible::full},      // encoder, 30 s of sound
    model{{"llama3_8b", 32, 8, 512, 512, 128}, visible::causal},          // a prompt of 512
    model{{"llama3_8b_chunk", 32, 8, 128, 4096, 128}, visible::causal},   // a prompt's last chunk
    model{{"mistral_7b", 32, 8, 128, 8192, 128, 4096}, visible::window},  // a chunk past the window
    model{{"gemma2_9b", 16, 8, 512, 512, 256}, visible::causal},          // without its softcap
};

/// One new token: heads on key heads and cached keys.
inline constexpr std::array caches{
    shape{"8on8_512", 8, 8, 1, 512, 128},     shape{"8on8_4096", 8, 8, 1, 4096, 128},
    shape{"8on8_32768", 8, 8, 1, 32768, 128}, shape{"32on8_512", 32, 8, 1, 512, 128},
    shape{"32on8_4096", 32, 8, 1, 4096, 128}, shape{"32on8_32768", 32, 8, 1, 32768, 128},
};

}  // namespace bench
