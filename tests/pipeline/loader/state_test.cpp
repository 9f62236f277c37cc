#include "pipeline/loader/state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <tuple>
#include <vector>

#include "pipeline/image/loader.h"
#include "tests/base/temporary_folder.h"

namespace millrace {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const LoaderState kState{.epoch = 3,
                         .step = 41,
                         .order = {.kind = Order::blocks, .block_size = 100, .window = 7},
                         .seed = 0xFEDCBA9876543210,
                         .batch_size = 256,
                         .samples = 1281167,
                         .fingerprint = 0x0123456789ABCDEF};

TEST(LoaderState, IsAFewBytesThatComeBack) {
  static_assert(LoaderState::kBytes < 100);
  const auto bytes = kState.to_bytes();
  EXPECT_EQ(LoaderState::from_bytes(bytes), kState);
  EXPECT_EQ(std::to_integer<int>(bytes[0]), 'M');
  EXPECT_EQ(std::to_integer<int>(bytes[40]), 3) << "the epoch, little-endian";
  EXPECT_EQ(std::to_integer<int>(bytes[48]), 41);
}

TEST(LoaderState, OneOfTheFirstFingerprintComesBackAsItWas) {
  LoaderState first = kState;
  first.fingerprint_version = 1;
  const auto bytes = first.to_bytes();
  EXPECT_EQ(std::to_integer<char>(bytes[7]), '1');
  EXPECT_EQ(std::to_integer<char>(kState.to_bytes()[7]), '2');
  EXPECT_EQ(LoaderState::from_bytes(bytes), first);
  first.fingerprint_version = 3;
  EXPECT_THAT(test::input_error([&] { LoaderState::from_bytes(first.to_bytes()); }),
              HasSubstr("fingerprint of version 3"));
}

TEST(LoaderState, IsComparedByTheFingerprintThatItHas) {
  Loader loader(open_dataset("synthetic:40"), {.batch_size = 8, .threads = 2});
  LoaderState state = loader.state();
  state.step = 3;
  state.fingerprint_version = 1;
  EXPECT_THAT(test::input_error([&] { loader.restore(state); }), HasSubstr("fingerprint"));
  state.fingerprint = loader.dataset().fingerprint(1);
  loader.restore(state);
  EXPECT_EQ(loader.state().step, 3);
  EXPECT_EQ(loader.state().fingerprint_version, 2);
  EXPECT_EQ(loader.state().fingerprint, loader.dataset().fingerprint());
}

TEST(LoaderState, EveryDamagedBitIsSeen) {
  const auto good = kState.to_bytes();
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    auto bytes = good;
    bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_THROW(LoaderState::from_bytes(bytes), InputError) << bit;
  }
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_THAT(test::input_error([&] { LoaderState::from_bytes(std::span(good).first(size)); }),
                AllOf(HasSubstr(std::to_string(size) + " bytes"), HasSubstr("88")));
  }
}

Loader make_loader(int samples, LoaderOptions options) {
  options.threads = 2;
  return Loader(open_dataset("synthetic:" + std::to_string(samples)), options);
}

TEST(LoaderState, CountsWhatWasTakenNotWhatIsPrepared) {
  Loader loader = make_loader(40, {.batch_size = 8, .slabs = 5});
  EXPECT_EQ(loader.state().step, 0);
  Batch batch;
  loader.epoch(2);
  for (int step = 0; step < 5; ++step) {
    EXPECT_EQ(loader.state().epoch, 2);
    EXPECT_EQ(loader.state().step, step);
    ASSERT_TRUE(loader.next(batch));
  }
  EXPECT_FALSE(loader.next(batch));
  EXPECT_EQ(loader.state().step, 5) << "the end of an epoch is a state as well";
}

/// The ids of each place, by epoch, step and position in the global batch; fails when one comes twice.
using Taken = std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, std::int64_t>;

void take(const Batch& batch, Taken& taken) {
  for (int i = 0; i < batch.shards(); ++i) {
    const Slab& slab = batch.shard(i);
    for (std::int64_t j = 0; j < slab.valid; ++j) {
      const auto id = static_cast<std::int64_t>(slab.ids().at({j}));
      EXPECT_TRUE(taken.insert({{batch.epoch(), batch.step(), slab.first_position + j}, id}).second);
    }
  }
}

TEST(LoaderState, GoesOnWithWhatIsLeftOnAnyRanksThreadsAndSlabs) {
  constexpr int kSamples = 77, kShards = 4;
  constexpr std::int64_t kEpochs = 3;
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (const OrderOptions& order : {OrderOptions{}, OrderOptions{Order::blocks, 5, 3}}) {
    LoaderOptions options{
        .batch_size = 8, .order = order, .tail = Tail::pad, .shards = kShards, .seed = 9, .epochs = kEpochs};
    Taken whole;
    Loader uninterrupted = make_loader(kSamples, options);
    for (std::int64_t epoch = 0; epoch < kEpochs; ++epoch) {
      for (const Batch& batch : uninterrupted.epoch(epoch)) {
        take(batch, whole);
      }
    }
    ASSERT_EQ(whole.size(), static_cast<std::size_t>(kEpochs * kSamples));

    Taken chained;
    std::array<std::byte, LoaderState::kBytes> state = make_loader(kSamples, options).state().to_bytes();
    for (;;) {
      const LoaderState from = LoaderState::from_bytes(state);
      const int ranks = 1 + static_cast<int>(random() % kShards), steps = static_cast<int>(random() % 9);
      for (int rank = 0; rank < ranks; ++rank) {
        options.first_shard = rank * kShards / ranks;
        options.local_shards = (rank + 1) * kShards / ranks - options.first_shard;
        options.slabs = options.local_shards + static_cast<int>(random() % 6);
        Loader loader = make_loader(kSamples, options);
        loader.restore(from);
        Batch batch;
        std::int64_t epoch = from.epoch;
        for (int step = 0; step < steps && epoch < kEpochs;) {
          if (loader.next(batch)) {
            take(batch, chained);
            ++step;
          } else {
            loader.epoch(++epoch);
          }
        }
        state = loader.state().to_bytes();
      }
      if (LoaderState::from_bytes(state).epoch == kEpochs) {
        break;
      }
    }
    EXPECT_EQ(chained, whole);
  }
}

TEST(LoaderState, TheLoopOverTheRestoredEpochGoesOn) {
  Loader first = make_loader(40, {.batch_size = 8, .seed = 2});
  Batch batch;
  first.epoch(1);
  for (int step = 0; step < 3; ++step) {
    ASSERT_TRUE(first.next(batch));
  }

  Loader second = make_loader(40, {.batch_size = 8, .seed = 2});
  second.restore(first.state());
  std::vector<std::int64_t> steps;
  const auto run = [&](std::int64_t epoch) {
    for (const Batch& each : second.epoch(epoch)) {
      steps.push_back(10 * each.epoch() + each.step());
    }
  };
  run(1);
  EXPECT_EQ(steps, (std::vector<std::int64_t>{13, 14}));
  steps.clear();
  run(1);
  EXPECT_EQ(steps.size(), 5u) << "only the first loop goes on; a later one is the whole epoch";
  second.restore(first.state());
  steps.clear();
  run(2);
  EXPECT_EQ(steps.front(), 20) << "another epoch starts at its first batch";

  LoaderState end = first.state();
  end.step = 5;
  second.restore(end);
  steps.clear();
  run(1);
  EXPECT_TRUE(steps.empty());
  EXPECT_FALSE(second.next(batch));
}

TEST(LoaderState, AMismatchNamesBothValues) {
  const LoaderOptions options{.batch_size = 8, .order = {Order::blocks, 5, 3}, .seed = 2};
  Loader loader = make_loader(40, options);
  const LoaderState good = loader.state();
  const auto refusal = [&](const std::function<void(LoaderState&)>& change) {
    LoaderState state = good;
    change(state);
    return test::input_error([&] { loader.restore(state); });
  };
  EXPECT_THAT(refusal([](auto& s) { s.permutation_version = 9; }),
              AllOf(HasSubstr("permutation version 9"), HasSubstr("has 1")));
  EXPECT_THAT(refusal([](auto& s) { s.order.kind = Order::shuffled; }),
              AllOf(HasSubstr("order shuffled"), HasSubstr("has blocks")));
  EXPECT_THAT(refusal([](auto& s) { s.order.block_size = 6; }), HasSubstr("block size 6"));
  EXPECT_THAT(refusal([](auto& s) { s.order.window = 4; }), HasSubstr("window 4"));
  EXPECT_THAT(refusal([](auto& s) { s.seed = 77; }), AllOf(HasSubstr("seed 77"), HasSubstr("has 2")));
  EXPECT_THAT(refusal([](auto& s) { s.batch_size = 16; }), AllOf(HasSubstr("16"), HasSubstr("has 8")));
  EXPECT_THAT(refusal([](auto& s) { s.samples = 41; }), AllOf(HasSubstr("41"), HasSubstr("has 40")));
  EXPECT_THAT(refusal([](auto& s) { ++s.fingerprint; }), HasSubstr("fingerprint"));
  EXPECT_THAT(refusal([](auto& s) { s.step = 6; }), AllOf(HasSubstr("step 6"), HasSubstr("5")));
  EXPECT_THAT(refusal([](auto& s) { s.step = -1; }), HasSubstr("step -1"));
  EXPECT_THAT(refusal([](auto& s) { s.epoch = std::int64_t{1} << 62; }), HasSubstr("epoch"));
  EXPECT_EQ(refusal([](auto&) {}), "(no error)");
}

}  // namespace
}  // namespace millrace
