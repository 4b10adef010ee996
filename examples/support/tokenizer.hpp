#pragma once

#include "llama2.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <unordered_map>

/// The byte-pair tokenizer of llama2.c.
///
///     int32: longest token; then per token float32 score, int32 length, bytes

namespace example {

class tokenizer {
 public:
  static constexpr int bos = 1;

  /// @throws file_error, also if the file does not hold exactly `vocabulary` tokens
  tokenizer(std::string const& path, int vocabulary);

  /// Characters first (bytes where a character is unknown), then the pair whose joined token has the highest score is
  /// merged, the leftmost of equals, until no pair joins. Adds no BOS and no leading space.
  std::vector<int> encode(std::string_view text) const;

  /// The text of a token that follows `previous`: after BOS a leading space is dropped, `<0xNN>` is a raw byte.
  std::string decode(int previous, int token) const;

 private:
  static constexpr int first_byte = 3;  // token of byte 0; before it stand <unk>, BOS and EOS
  static constexpr int none = -1;

  std::vector<int> characters(std::string_view text) const;
  int joined(int left, int right) const;

  std::vector<std::string> pieces_;
  std::vector<float> scores_;
  std::unordered_map<std::string, int> ids_;
};

inline tokenizer::tokenizer(std::string const& path, int vocabulary) {
  std::vector<char> const bytes = read_file(path);
  std::size_t at = 0;
  auto const damaged = [&](std::string const& how) {
    return file_error(path + " is not a tokenizer for this model: " + how);
  };
  auto const read = [&](auto& value) {
    if (bytes.size() - at < sizeof value)
      throw damaged("it ends too early");
    std::memcpy(&value, bytes.data() + at, sizeof value);
    at += sizeof value;
  };
  std::int32_t longest = 0;
  read(longest);
  for (int id = 0; id < vocabulary; ++id) {
    float score = 0;
    std::int32_t length = 0;
    read(score);
    read(length);
    if (length < 0 || length > longest || !std::isfinite(score))
      throw damaged("token " + std::to_string(id) + " makes no sense");
    if (bytes.size() - at < static_cast<std::size_t>(length))
      throw damaged("it ends too early");
    pieces_.emplace_back(bytes.data() + at, static_cast<std::size_t>(length));
    scores_.push_back(score);
    ids_.emplace(pieces_.back(), id);
    at += static_cast<std::size_t>(length);
  }
  if (at != bytes.size())
    throw damaged("it has more than the model's " + std::to_string(vocabulary) + " tokens");
  if (vocabulary < first_byte + 256)
    throw damaged("it has no tokens for single bytes");
}

inline std::vector<int> tokenizer::characters(std::string_view text) const {
  std::vector<int> tokens;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t length = 1;  // of one UTF-8 character: its first byte and the 10xxxxxx bytes that follow
    while (length < 4 && at + length < text.size() && (text[at + length] & 0xC0) == 0x80)
      ++length;
    auto const known = ids_.find(std::string(text.substr(at, length)));
    if (known != ids_.end())
      tokens.push_back(known->second);
    else
      for (char byte : text.substr(at, length))
        tokens.push_back(first_byte + static_cast<unsigned char>(byte));
    at += length;
  }
  return tokens;
}

inline int tokenizer::joined(int left, int right) const {
  auto const found = ids_.find(pieces_[static_cast<std::size_t>(left)] + pieces_[static_cast<std::size_t>(right)]);
  return found == ids_.end() ? none : found->second;
}

inline std::vector<int> tokenizer::encode(std::string_view text) const {
  std::vector<int> tokens = characters(text);
  std::vector<int> joins(tokens.size(), none);  // what tokens i and i + 1 would become
  auto const update = [&](std::size_t i) {
    joins[i] = i + 1 < tokens.size() ? joined(tokens[i], tokens[i + 1]) : none;
  };
  for (std::size_t i = 0; i < tokens.size(); ++i)
    update(i);
  auto const worse = [&](int a, int b) {
    return b != none && (a == none || scores_[static_cast<std::size_t>(a)] < scores_[static_cast<std::size_t>(b)]);
  };
  for (;;) {
    auto const best = std::max_element(joins.begin(), joins.end(), worse);
    if (best == joins.end() || *best == none)
      return tokens;
    auto const i = best - joins.begin();
    tokens[static_cast<std::size_t>(i)] = *best;
    tokens.erase(tokens.begin() + i + 1);
    joins.erase(joins.begin() + i + 1);
    update(static_cast<std::size_t>(i));
    if (i > 0)
      update(static_cast<std::size_t>(i) - 1);
  }
}

inline std::string tokenizer::decode(int previous, int token) const {
  std::string piece = pieces_[static_cast<std::size_t>(token)];
  unsigned byte = 0;
  if (piece.size() == 6 && std::sscanf(piece.c_str(), "<0x%02X>", &byte) == 1)
    return {static_cast<char>(byte)};
  if (previous == bos && piece.starts_with(' '))
    piece.erase(0, 1);
  return piece;
}

}  // namespace example
