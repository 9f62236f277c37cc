#pragma once

#include <atomic>
#include <chrono>
#include <gmock/gmock.h>
#include <thread>
#include <vector>

#include "tests/distributed/on_ranks.h"
#include "tests/distributed/rank_values.h"

/// What every group of GPUs must do, whatever carries its data. `make(n)` makes a group of n ranks.
namespace millrace {

using MakeGroup = std::function<std::vector<std::unique_ptr<Communicator>>(int size)>;
/// The GPU of a rank.
using PlaceOf = std::function<Device(int rank)>;

/// The values, once the work that is enqueued now is done.
inline Tensor fetch(Communicator& communicator, const Tensor& tensor) {
  Event done;
  done.record(current_stream(tensor.device()));
  communicator.wait(done);
  return tensor.to(kCpu);
}

template <typename T>
void expect_gpu_tree_sums(const MakeGroup& make_group, const PlaceOf& place, int ranks, std::int64_t count) {
  const auto errors = on_ranks(make_group(ranks), [&](Communicator& communicator) {
    const int rank = communicator.rank();
    // One element on, where vectors cannot be loaded, and from the beginning, where they can.
    for (const std::int64_t first : {0, 1}) {
      Tensor whole = make<T>(1, rank, count + first).to(place(rank));
      Tensor tensor = whole.narrow(0, first, count);
      communicator.all_reduce(tensor);
      const Tensor sum = fetch(communicator, whole);
      for (std::int64_t i = first; i < count; ++i) {
        ASSERT_EQ(sum.data<T>()[i], expected_sum<T>(1, ranks, i)) << ranks << " ranks, element " << i;
      }
      if (first == 1) {
        ASSERT_EQ(sum.data<T>()[0], value_at<T>(1, rank, 0)) << "what lies before the tensor was touched";
      }
    }
  });
  EXPECT_THAT(errors, ::testing::Each(""));
}

inline void expect_gpu_tree_sums(const MakeGroup& make_group, const PlaceOf& place) {
  for (const int ranks : {1, 2, 3, 4, 5, 8}) {
    for (const std::int64_t count : {0, 1, 15, 17, 1000}) {
      expect_gpu_tree_sums<float>(make_group, place, ranks, count);
      expect_gpu_tree_sums<double>(make_group, place, ranks, count);
    }
  }
}

inline void expect_parts_and_copies(const MakeGroup& make_group, const PlaceOf& place) {
  constexpr std::int64_t kPart = 37;
  for (const int ranks : {1, 2, 3, 5}) {
    const auto errors = on_ranks(make_group(ranks), [&](Communicator& communicator) {
      const int rank = communicator.rank();
      Tensor input = make<float>(2, rank, kPart * ranks).to(place(rank));
      Tensor part = empty({kPart}, {.device = place(rank)});
      Tensor joined = empty({kPart * ranks}, {.device = place(rank)});
      const auto versions = [&] { return std::pair(part.storage()->version(), joined.storage()->version()); };
      const auto before = versions();
      communicator.reduce_scatter(input, part);
      communicator.all_gather(part, joined);
      EXPECT_GT(versions().first, before.first)
          << "whoever keeps what was made of it must see that it changed";
      EXPECT_GT(versions().second, before.second);
      const Tensor all = fetch(communicator, joined);
      for (std::int64_t i = 0; i < kPart * ranks; ++i) {
        ASSERT_EQ(all.data<float>()[i], expected_sum<float>(2, ranks, i)) << ranks << " ranks, element " << i;
      }
      for (int root = 0; root < ranks; ++root) {
        Tensor tensor = full({7, 3}, rank, {.dtype = DType::bf16, .device = place(rank)});
        const auto version = tensor.storage()->version();
        communicator.broadcast(tensor, root);
        EXPECT_TRUE(rank == root || tensor.storage()->version() > version);
        ASSERT_EQ(fetch(communicator, tensor).at({6, 2}), root);
      }
      communicator.barrier();
    });
    EXPECT_THAT(errors, ::testing::Each(""));
  }
}

/// Nobody passes a barrier before all have come.
inline void expect_barrier_waits(const MakeGroup& make_group) {
  for (int late = 0; late < 3; ++late) {
    std::atomic<bool> came = false;
    const auto errors = on_ranks(make_group(3), [&](Communicator& communicator) {
      if (communicator.rank() == late) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        came = true;
      }
      communicator.barrier();
      EXPECT_TRUE(came) << "rank " << communicator.rank() << " did not wait for rank " << late;
    });
    EXPECT_THAT(errors, ::testing::Each(""));
  }
}

/// Operations on streams of their own, which the host never waits for in between: each sees what was enqueued
/// before it, and is seen by what is enqueued behind it.
inline void expect_stream_order(const MakeGroup& make_group, const PlaceOf& place) {
  const auto errors = on_ranks(make_group(4), [&](Communicator& communicator) {
    const Device device = place(communicator.rank());
    const Stream side = Stream::make(device);
    Tensor tensor = full({5000}, 1, {.device = device});
    tensor.storage()->record_stream(side);
    Event filled, summed;
    for (int round = 0; round < 10; ++round) {
      tensor.mul_(0.25);
      filled.record(current_stream(device));
      filled.make_wait(side);
      communicator.all_reduce(tensor, side);
      summed.record(side);
      summed.make_wait(current_stream(device));
    }
    const Tensor values = fetch(communicator, tensor);
    for (std::int64_t i = 0; i < 5000; ++i) {
      ASSERT_EQ(values.data<float>()[i], 1) << i;
    }
  });
  EXPECT_THAT(errors, ::testing::Each(""));
}

}  // namespace millrace
