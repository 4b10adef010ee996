#include <heed/core/workspace.hpp>

#include "support/catch.hpp"
#include "support/counting_allocator.hpp"

#include <cstring>
#include <utility>

namespace heed::test {
namespace {

static_assert(!std::is_copy_constructible_v<workspace>);

bool aligned(workspace const& w) { return reinterpret_cast<std::uintptr_t>(w.data()) % 64 == 0; }

TEST_CASE("A workspace owns aligned memory and grows", "[contract][resources]") {
  workspace w;
  CHECK(w.size() == 0);
  CHECK(w.data() == nullptr);
  allocation_count const heap;
  w.reserve(100);
  CHECK(w.size() >= 100);
  CHECK(aligned(w));
  std::memset(w.data(), 1, w.size());
  CHECK(heap.count() == 1);
  auto const* const before = w.data();
  w.reserve(40);
  w.reserve(100);
  CHECK(w.data() == before);
  CHECK(heap.count() == 1);
  w.reserve(5000);
  CHECK(w.size() >= 5000);
  CHECK(aligned(w));
  std::memset(w.data(), 2, w.size());
  CHECK(heap.count() == 2);
  w.reserve(0);
  CHECK(w.size() >= 5000);
}

TEST_CASE("A workspace borrows memory of any alignment and keeps inside it", "[contract][edges][resources]") {
  alignas(64) std::byte memory[512];
  allocation_count const heap;
  for (std::size_t offset = 0; offset <= 64; ++offset)
    for (std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{300}}) {
      workspace const w(memory + offset, bytes);
      if (w.size() == 0) {
        REQUIRE(bytes <= (64 - offset % 64) % 64);
        continue;
      }
      REQUIRE(aligned(w));
      REQUIRE(w.data() >= memory + offset);
      REQUIRE(w.data() + w.size() == memory + offset + bytes);
      REQUIRE(w.data() - (memory + offset) < 64);
    }
  workspace const nothing(nullptr, 0);
  CHECK(nothing.size() == 0);
  CHECK(heap.count() == 0);
}

TEST_CASE("A borrowed workspace that must grow lets go of the borrowed memory", "[edges]") {
  alignas(64) std::byte memory[128];
  workspace w(memory, sizeof memory);
  w.reserve(128);
  CHECK(w.data() == memory);
  w.reserve(129);
  CHECK(w.data() != memory);
  CHECK(w.size() >= 129);
}

TEST_CASE("Moving a workspace moves its memory", "[contract][resources]") {
  alignas(64) std::byte memory[128];
  workspace owner(200), borrower(memory, sizeof memory);
  auto const* const owned = owner.data();
  allocation_count const heap;
  workspace moved = std::move(owner);
  CHECK(moved.data() == owned);
  CHECK(moved.size() == 200);
  CHECK(owner.data() == nullptr);  // NOLINT: the state after a move is what is tested
  CHECK(owner.size() == 0);
  borrower = std::move(moved);
  CHECK(borrower.data() == owned);
  owner = std::move(borrower);
  CHECK(owner.data() == owned);
  owner = workspace();
  CHECK(heap.count() == 0);
}

}  // namespace
}  // namespace heed::test
