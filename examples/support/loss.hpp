#pragma once

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

/// How well a model foretells a text: the negative log-likelihood of its tokens, by position.

namespace example {

/// −ln p of a token in nats, from one row of logits.
template <class Row>
double negative_log_likelihood(Row const& logits, int token) {
  double const top = static_cast<double>(logits.maxCoeff());
  double const sum = (logits.template cast<double>().array() - top).exp().sum();
  return top + std::log(sum) - static_cast<double>(logits[token]);
}

/// 0, 256, 512, 768, 1024, 1536, 2048, …, cut at the length: every range holds at least one prediction.
inline std::vector<int> range_edges(int length) {
  std::vector<int> edges{0};
  auto const cut = [&](int edge) {
    if (edge < length - 1)
      edges.push_back(edge);
  };
  cut(256);
  for (int octave = 512; octave < length; octave *= 2) {
    cut(octave);
    cut(octave + octave / 2);
  }
  edges.push_back(length);
  return edges;
}

/// Means over the positions of each range.
class range_means {
 public:
  explicit range_means(std::vector<int> const& edges)
      : edges_(edges), sums_(edges.size() - 1), counts_(edges.size() - 1) {}

  void add(int position, double value) {
    auto const range = std::ranges::upper_bound(edges_, position) - edges_.begin() - 1;
    sums_[static_cast<std::size_t>(range)] += value;
    counts_[static_cast<std::size_t>(range)] += 1;
  }

  std::size_t size() const { return sums_.size(); }
  bool empty(std::size_t range) const { return counts_[range] == 0; }
  double mean(std::size_t range) const { return sums_[range] / counts_[range]; }
  std::string name(std::size_t range) const {
    return std::to_string(edges_[range]) + "-" + std::to_string(edges_[range + 1]);
  }

 private:
  std::vector<int> edges_;
  std::vector<double> sums_, counts_;
};

}  // namespace example
