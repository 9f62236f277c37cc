#include "distributed/buckets.h"

#include <gmock/gmock.h>
#include <utility>

#include "tests/distributed/on_ranks.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using Parts = std::vector<std::pair<std::int64_t, std::int64_t>>;

/// Records what goes out; sums with nobody.
struct Recorder {
  std::unique_ptr<Communicator> alone = std::move(make_thread_group(1)[0]);
  Parts sent, summed;
  Buckets make(Tensor buffer, std::vector<std::int64_t> offsets, std::int64_t bytes) {
    return {std::move(buffer),
            offsets,
            *alone,
            {.bucket_bytes = bytes,
             .prepare = [this](auto begin, auto end) { sent.emplace_back(begin, end); },
             .summed = [this](auto begin, auto end) { summed.emplace_back(begin, end); }}};
  }
};

TEST(Buckets, OneByDefaultGoesOutAtTheEnd) {
  Recorder recorder;
  Buckets buckets = recorder.make(zeros({100}), {0, 16, 48}, 0);
  EXPECT_EQ(buckets.count(), 1);
  for (std::size_t piece : {0, 1, 2}) {
    buckets.ready(piece);
  }
  EXPECT_TRUE(recorder.sent.empty());
  buckets.finish();
  EXPECT_THAT(recorder.sent, ElementsAre(std::pair(0, 100)));
}

TEST(Buckets, GoOutInOrderAsTheyFill) {
  Recorder recorder;
  // 128 bytes are 32 elements: [0, 32), [32, 80), and the rest with the tail behind the last piece.
  Buckets buckets = recorder.make(zeros({100}), {0, 16, 32, 48, 80}, 128);
  EXPECT_EQ(buckets.count(), 3);
  for (int round = 0; round < 2; ++round) {
    recorder.sent.clear();
    buckets.ready(0);
    buckets.ready(3);
    buckets.ready(2);
    EXPECT_TRUE(recorder.sent.empty()) << "the second bucket is full, but must wait for the first";
    buckets.ready(1);
    EXPECT_THAT(recorder.sent, ElementsAre(std::pair(0, 32), std::pair(32, 80)));
    buckets.ready(4);
    EXPECT_EQ(recorder.sent.size(), 2u) << "the last bucket carries the tail and waits for finish";
    buckets.finish();
    EXPECT_THAT(recorder.sent, ElementsAre(std::pair(0, 32), std::pair(32, 80), std::pair(80, 100)));
  }
  EXPECT_EQ(recorder.summed.size(), 6u);
  EXPECT_EQ(recorder.summed.back(), std::pair(std::int64_t{80}, std::int64_t{100}));
}

TEST(Buckets, TheLastIsTheSmallest) {
  Recorder recorder;
  std::vector<std::int64_t> offsets;
  for (std::int64_t at = 0; at < 4096; at += 64) {
    offsets.push_back(at);
  }
  // A quarter each would leave a whole bucket to the end.
  recorder.make(zeros({4096}), offsets, 4096).finish();
  EXPECT_THAT(recorder.sent, ElementsAre(std::pair(0, 1024), std::pair(1024, 2048), std::pair(2048, 3072),
                                         std::pair(3072, 3840), std::pair(3840, 4096)));
  recorder.sent.clear();
  recorder.make(zeros({500}), {0, 100, 490}, 4096).finish();
  EXPECT_THAT(recorder.sent, ElementsAre(std::pair(0, 500))) << "too little for two";
}

TEST(Buckets, SizeOfOverlappingOnes) {
  EXPECT_EQ(overlapping_bucket_bytes(250'000), 500'000);
  EXPECT_EQ(overlapping_bucket_bytes(8 << 20), 2 << 20);
  EXPECT_EQ(overlapping_bucket_bytes(1'000'000'000), 25'000'000);
}

TEST(Buckets, FinishSendsWhatNeverBecameReady) {
  Recorder recorder;
  Buckets buckets = recorder.make(zeros({64}), {0, 16, 32}, 64);
  buckets.ready(1);
  buckets.finish();
  EXPECT_THAT(recorder.sent, ElementsAre(std::pair(0, 16), std::pair(16, 32), std::pair(32, 64)));
}

TEST(Buckets, NoPiecesStillSendTheTail) {
  Recorder recorder;
  Buckets buckets = recorder.make(zeros({8}), {}, 64);
  buckets.finish();
  EXPECT_THAT(recorder.sent, ElementsAre(std::pair(0, 8)));
}

TEST(Buckets, SumEveryElementOnce) {
  const auto errors = on_ranks(3, [](Communicator& communicator) {
    Tensor buffer = full({1000}, communicator.rank() + 1);
    const std::vector<std::int64_t> offsets{0, 100, 300, 900};
    // What `prepare` adds is part of the sum: partial sums of earlier shards come in this way.
    Buckets buckets(buffer, offsets, communicator,
                    {.bucket_bytes = 400, .prepare = [&](std::int64_t begin, std::int64_t end) {
                       buffer.narrow(0, begin, end - begin).add_(10);
                     }});
    for (std::size_t piece : {0, 1, 2, 3}) {
      buckets.ready(piece);
    }
    buckets.finish();
    for (std::int64_t i = 0; i < 1000; ++i) {
      ASSERT_EQ(buffer.at({i}), 36);
    }
  });
  EXPECT_THAT(errors, ::testing::Each(""));
}

}  // namespace
}  // namespace millrace
