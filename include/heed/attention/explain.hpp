#pragma once

#include <heed/attention/fold.hpp>
#include <heed/kernel/few_rows.hpp>
#include <heed/kernel/pass.hpp>

#include <ostream>
#include <string>

namespace heed {

/// Which of the two drivers of the pass a call takes.
enum class path { nothing, queries_in_lanes, few_rows };

/// How a call will be done; printed by `<<`, asserted on by tests.
struct plan {
  heed::path path = heed::path::nothing;
  std::string instruction_set;
  index query_block = 0;  // queries in lanes, or the rows of one (batch, key head)
  index blocks = 0;       // query blocks that share converted keys
  index key_block = 0;
  bool one_tile = false;  // holds all keys, so that weights go straight to rows of output (kernel/value_rows.hpp)
  int tile_rows = 0;      // accumulators: tile_rows × tile_vectors
  int tile_vectors = 0;
  index tasks = 0;
  index splits = 0;                 // the most pieces that a row's keys are cut into
  std::size_t scratch_bytes = 0;    // a worker's
  std::size_t workspace_bytes = 0;  // all of it
  // Of each: "in place", "… widened in registers", "… on tiles", or what is converted and why.
  std::string queries, keys, values, results;
  std::string products;  // what multiplies: "float", "AMX tiles", and why not tiles where they were asked for
  index offset = 0;      // position of query 0 in batch 0
};

inline std::ostream& operator<<(std::ostream& to, plan const& p) {
  char const* const names[] = {"nothing to do", "queries in lanes", "few rows"};
  return to << "path: " << names[static_cast<int>(p.path)] << " (" << p.instruction_set << ")\n"
            << "tiles: " << p.query_block << " queries × " << p.key_block << " keys"
            << (p.one_tile ? ", all at once, " : ", ") << p.blocks << " query blocks together, registers "
            << p.tile_rows << " × " << p.tile_vectors << "\n"
            << "tasks: " << p.tasks << ", key splits: " << p.splits << "\n"
            << "scratch: " << p.scratch_bytes << " bytes a worker, " << p.workspace_bytes << " in all\n"
            << "q: " << p.queries << "; k: " << p.keys << "; v: " << p.values << "; out: " << p.results << "\n"
            << "products: " << p.products << "\n"
            << "offset: " << p.offset << "\n";
}

HEED_ISA_BEGIN
namespace impl {

/// @param widens whether the path widens narrow storage in registers, while it reads
/// @param copied whether rows that it could read in place are copied
template <real T>
std::string storage_of(operand const& x, bool turned, bool widens = false, bool copied = false) {
  std::string text;
  if (x.kind != kind_of<T>())
    text = std::string(name_of(x.kind)) + " widened";
  bool const in_place_of_copy = widens && !turned && in_registers<T>(x) && !in_place<T>(x);
  if (in_place_of_copy)
    text += " in registers";
  if (x.scales != nullptr)
    text += x.scale_block >= x.extents[3] ? ", a scale a row"
                                          : ", a scale per " + std::to_string(x.scale_block) + " channels";
  if (in_place_of_copy)
    return text;
  if (x.strides[3] != 1 && x.extents[3] != 1)
    text += (text.empty() ? "" : ", ") + ("channel stride " + std::to_string(x.strides[3]) + " gathered");
  if (copied && !turned)
    text += "rows far apart copied";
  if (turned)
    text += text.empty() ? "rotated" : ", rotated";
  return text.empty() ? "in place" : text + ", a block at a time";
}

/// Rows that tiles take as they are stored.
inline std::string storage_on_tiles(operand const& x) {
  return std::string(name_of(x.kind)) + " on tiles" + (x.scales != nullptr ? ", a scale a row" : "");
}

/// The same of bfloat16 tiles, which take turned rows and codes rounded.
inline std::string storage_rounded(operand const& x, bool turned) {
  bool const as_stored = x.kind == scalar_kind::bfloat16 && !turned;
  return as_stored ? storage_on_tiles(x) : storage_of<float>(x, turned) + ", rounded to bfloat16 on tiles";
}

template <real T>
std::string products_of(problem<T> const& p, path way) {
  if (p.on_tiles && way == path::queries_in_lanes)
    return "AMX tiles, bfloat16";
  std::string const text = std::same_as<T, float> ? "float" : "double";
  if (!p.said.amx)
    return text;
  if (way != path::few_rows)
    return text + "; no AMX tiles: " + why_not_tiles(p);
  char const *const keys = why_no_scores_on_tiles(p), *const values = why_no_values_on_tiles(p);
  if (keys == nullptr && values == nullptr)
    return "AMX tiles, int8";
  if (keys != nullptr && values != nullptr)
    return text + "; no AMX tiles: " + keys;
  return keys == nullptr ? "AMX tiles, int8 keys; values " + text + ": " + values
                         : "AMX tiles, int8 values; keys " + text + ": " + keys;
}

}  // namespace impl
HEED_ISA_END
}  // namespace heed
