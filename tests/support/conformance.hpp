#pragma once

#include <heed/core/tensor.hpp>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

/// Conformance cases from outside: one folder a case, `meta.json` and raw little-endian row-major files.

namespace heed::test {

/// One tensor of a case, as it was read.
struct stored_tensor {
  std::string dtype;  // float32, float64, float16, bool, int32, int64
  std::vector<index> shape;
  std::vector<char> bytes;

  index size() const {
    index n = 1;
    for (index e : shape)
      n *= e;
    return n;
  }

  int rank() const { return static_cast<int>(shape.size()); }

  /// The element in row-major order, whatever its type.
  double operator[](index i) const {
    if (dtype == "float32")
      return read<float>(i);
    if (dtype == "float64")
      return read<double>(i);
    if (dtype == "float16")
      return static_cast<double>(read<Eigen::half>(i));
    if (dtype == "bool")
      return read<unsigned char>(i) != 0 ? 1 : 0;
    if (dtype == "int32")
      return static_cast<double>(read<std::int32_t>(i));
    if (dtype == "int64")
      return static_cast<double>(read<std::int64_t>(i));
    detail::fail("conformance: no reader for dtype ", dtype);
  }

  /// Copied into a tensor of this rank; missing dimensions go in front, as extents of 1.
  template <class T, int Rank>
  tensor<T, Rank> as() const {
    detail::expect(rank() <= Rank, "conformance: a tensor of rank ", rank(), " does not fit rank ", Rank);
    index_array<Rank> extents;
    extents.fill(1);
    for (index i = 0; i < rank(); ++i)
      extents[static_cast<std::size_t>(Rank - rank() + i)] = shape[static_cast<std::size_t>(i)];
    tensor<T, Rank> result(extents);
    for (index i = 0; i < result.size(); ++i)
      result.data()[i] = static_cast<T>((*this)[i]);
    return result;
  }

 private:
  template <class T>
  T read(index i) const {
    T value;
    std::memcpy(&value, bytes.data() + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
    return value;
  }
};

struct conformance_case {
  std::string name;
  nlohmann::json attributes;
  std::map<std::string, stored_tensor> inputs, outputs;

  bool has(std::string const& input) const { return inputs.count(input) != 0; }
  bool gives(std::string const& output) const { return outputs.count(output) != 0; }
};

inline std::size_t size_of_dtype(std::string const& dtype) {
  static std::map<std::string, std::size_t> const sizes{{"float32", 4}, {"float64", 8}, {"float16", 2},
                                                        {"bool", 1},    {"int32", 4},   {"int64", 8}};
  auto const found = sizes.find(dtype);
  if (found == sizes.end())
    detail::fail("conformance: unknown dtype ", dtype);
  return found->second;
}

/// @throws argument_error for a file of the wrong size, nlohmann::json::exception for a damaged meta.json
inline conformance_case read_case(std::filesystem::path const& folder) {
  nlohmann::json meta;
  std::ifstream(folder / "meta.json") >> meta;
  conformance_case result{folder.filename().string(), meta.value("attributes", nlohmann::json::object()), {}, {}};
  for (auto const& entry : meta.at("tensors")) {
    stored_tensor t{entry.at("dtype"), entry.at("shape").get<std::vector<index>>(), {}};
    std::string const file = entry.at("file");
    std::ifstream in(folder / file, std::ios::binary);
    t.bytes.assign(std::istreambuf_iterator<char>(in), {});
    detail::expect(t.bytes.size() == static_cast<std::size_t>(t.size()) * size_of_dtype(t.dtype),
                   "conformance: ", result.name, "/", file, " must have ",
                   static_cast<std::size_t>(t.size()) * size_of_dtype(t.dtype), " bytes, got ", t.bytes.size());
    auto& into = entry.at("kind") == "input" ? result.inputs : result.outputs;
    into.emplace(entry.at("name").get<std::string>(), std::move(t));
  }
  return result;
}

/// The case folders of a collection such as "onnx_attention", sorted; none where there is no such collection.
inline std::vector<std::filesystem::path> case_folders(std::string const& collection) {
  std::vector<std::filesystem::path> result;
  auto const root = std::filesystem::path(HEED_CONFORMANCE_DIR) / collection;
  if (!std::filesystem::is_directory(root))
    return result;
  for (auto const& entry : std::filesystem::directory_iterator(root))
    if (std::filesystem::exists(entry.path() / "meta.json"))
      result.push_back(entry.path());
  std::sort(result.begin(), result.end());
  return result;
}

}  // namespace heed::test

/// Leaves the test case, saying that it was skipped, where the collection is not there.
#define HEED_SKIP_WITHOUT(collection)                                                                                  \
  if (!std::filesystem::is_directory(std::filesystem::path(HEED_CONFORMANCE_DIR) / (collection))) {                    \
    WARN("skipped: no conformance cases " << (collection) << " under " << HEED_CONFORMANCE_DIR);                       \
    return;                                                                                                            \
  }                                                                                                                    \
  static_assert(true)
