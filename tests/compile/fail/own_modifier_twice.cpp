// expect: heed: two modifiers of one type of your own in one call
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

struct shift {
  static constexpr auto stage = heed::score_stage::bias;
  float by;
  template <class S, class Site>
  S apply(S s, Site const&) const {
    return s + S(by);
  }
};

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out) {
  heed::attention(q, k, v, out, shift{1}, shift{2});
}
