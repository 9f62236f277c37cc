#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "pipeline/image/loader.h"
#include "pipeline/training/trainer.h"
#include "tests/base/temporary_folder.h"

namespace millrace {
namespace {

using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr std::size_t kRecord = 3073;

/// Five files in CIFAR-10's format, of `records` each; pixels and label follow from the record's number.
void write_cifar(const TemporaryFolder& folder, int records) {
  for (int file = 0; file < 5; ++file) {
    std::string bytes;
    for (int record = 0; record < records; ++record) {
      const int number = file * records + record;
      bytes += static_cast<char>(number % 10);
      bytes += std::string(kRecord - 1, static_cast<char>(1 + number % 255));
    }
    folder.write(fmt::format("data_batch_{}.bin", file + 1), bytes);
  }
}

std::string cifar(const TemporaryFolder& folder) { return "cifar10:" + folder.path(); }

/// Ids, labels and pixels of an epoch.
std::string bytes_of_epoch(Loader& loader) {
  std::string all;
  for (const Batch& batch : loader.epoch(0)) {
    for (const Tensor& tensor : {batch.ids(), batch.labels(), batch.images()}) {
      const auto bytes = tensor.bytes();
      all.append(reinterpret_cast<const char*>(tensor.raw()), bytes);
    }
  }
  return all;
}

TEST(Reading, EveryWayGivesTheSameBatches) {
  const TemporaryFolder folder;
  write_cifar(folder, 30);
  std::string expected;
  for (const Reading reading : {Reading::map, Reading::read}) {
    for (const int readers : {0, 1, 3}) {
      for (const int chunk : {1, 7}) {
        Loader loader(open_dataset(cifar(folder), {.reading = reading}),
                      {.batch_size = 16,
                       .transforms = "random_crop:4,horizontal_flip,normalize",
                       .tail = Tail::pad,
                       .threads = 2,
                       .reader_threads = readers,
                       .chunk = chunk});
        const std::string got = bytes_of_epoch(loader);
        expected = expected.empty() ? got : expected;
        EXPECT_EQ(got, expected) << readers << " reader threads, chunk " << chunk;
        EXPECT_EQ(loader.statistics().samples, 150);
        EXPECT_EQ(loader.statistics().bytes, 150 * (static_cast<std::int64_t>(kRecord) - 1));
      }
    }
  }
}

/// Whoever cuts a file under a loader gets errors, never wrong pixels.
TEST(Reading, ACutFileGivesErrorsAndNoZeros) {
  for (const int readers : {0, 2}) {
    const TemporaryFolder folder;
    write_cifar(folder, 40);
    Loader loader(open_dataset(cifar(folder)),
                  {.batch_size = 1, .dtype = DType::u8, .threads = 2, .reader_threads = readers});
    loader.epoch(0);
    Batch batch;
    ASSERT_TRUE(loader.next(batch));
    constexpr std::size_t kLeft = 17 * kRecord + 2000;  // within a page and within a record
    for (int file = 1; file <= 5; ++file) {
      std::filesystem::resize_file(folder.path(fmt::format("data_batch_{}.bin", file)), kLeft);
    }
    int good = 0, failed = 0;
    for (bool more = true; more;) {
      try {
        more = loader.next(batch);
        if (more) {
          ++good;
          const Tensor images = batch.images();
          const auto id = static_cast<int>(batch.ids().at({0}));
          const auto* pixels = images.data<std::uint8_t>();
          EXPECT_TRUE(
              std::all_of(pixels, pixels + images.numel(), [&](int pixel) { return pixel == 1 + id % 255; }))
              << "sample " << id;
        }
      } catch (const InputError& error) {
        ++failed;
        EXPECT_THAT(error.what(), AllOf(HasSubstr("data_batch_"), HasSubstr("was cut to 54241 bytes")));
      }
    }
    EXPECT_EQ(good + failed, 199);
    EXPECT_GE(failed, 5 * 22) << "all behind the cut, but for those that were made before";
    EXPECT_GE(good, 5 * 17 - 1);
  }
}

/// Synthetic images of which some fail and one waits.
class Odd final : public Dataset {
 public:
  std::int64_t size() const override { return 64; }
  const DatasetInfo& info() const override { return info_; }
  std::string describe(std::int64_t index) const override {
    if (index == blocked) {
      throw MachineError("what hangs cannot be described");
    }
    return fmt::format("odd {}", index);
  }
  Sample read(std::int64_t index, std::vector<std::byte>& scratch) const override {
    if (failing.count(index) > 0) {
      throw InputError("cannot read {}", describe(index));
    }
    while (index == blocked && !released) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    scratch.assign(12, static_cast<std::byte>(index));
    return {.bytes = scratch, .height = 2, .width = 2, .channels = 3, .label = index};
  }
  void will_need(std::span<const std::int64_t> indices) const override {
    advised += std::ssize(indices);
    throw InputError("advice may fail");
  }

  std::set<std::int64_t> failing;
  std::int64_t blocked = -1;
  mutable std::atomic<bool> released = false;
  mutable std::atomic<std::int64_t> advised = 0;

 private:
  DatasetInfo info_{.height = 2, .width = 2};
};

TEST(Reading, ReaderThreadsKeepErrorsForTheirBatch) {
  const auto data = std::make_shared<Odd>();
  data->failing = {21, 22};
  Loader loader(
      data, {.batch_size = 8, .order = {Order::sequential}, .threads = 2, .reader_threads = 2, .chunk = 3});
  loader.epoch(0);
  Batch batch;
  for (int step = 0; step < 8; ++step) {
    if (step == 2) {
      EXPECT_EQ(test::input_error([&] { loader.next(batch); }), "cannot read odd 21");
    } else {
      ASSERT_TRUE(loader.next(batch));
      EXPECT_EQ(batch.ids().at({0}), 8 * step);
    }
  }
  EXPECT_FALSE(loader.next(batch));
  EXPECT_EQ(data->advised, 64) << "each sample once, and an error of advice is none";
}

TEST(Reading, AStuckReaderIsNamedAndTheLoaderEnds) {
  const auto data = std::make_shared<Odd>();
  data->blocked = 9;
  Loader loader(data, {.batch_size = 8,
                       .order = {Order::sequential},
                       .threads = 2,
                       .reader_threads = 1,
                       .timeout_seconds = 0.2});
  loader.epoch(0);
  Batch batch;
  ASSERT_TRUE(loader.next(batch));
  try {
    loader.next(batch);
    FAIL();
  } catch (const MachineError& error) {
    EXPECT_THAT(error.what(), HasSubstr("a reader thread is reading sample 9"));
  }
  data->released = true;
}

TEST(Statistics, CountWhatWasMadeAndTaken) {
  const auto data = std::make_shared<Odd>();
  Loader loader(data, {.batch_size = 8, .threads = 1, .slabs = 2});
  Batch batch;
  loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  // Both slabs are full or held now, for longer than it takes to fill them.
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  while (loader.next(batch)) {
  }
  const LoaderStatistics all = loader.statistics();
  EXPECT_EQ(all.samples, 64);
  EXPECT_EQ(all.bytes, 64 * 12);
  EXPECT_EQ(all.batches, 8);
  EXPECT_GE(all.seconds, 0.03);
  EXPECT_GT(all.slab_wait, 0);
  EXPECT_LE(all.consumer_wait, all.seconds);
  EXPECT_GT(all.read + all.decode + all.write, 0);
  EXPECT_EQ(loader.statistics().since(all).batches, 0);
  EXPECT_EQ(loader.statistics().since(all).decode, 0);
}

TEST(Statistics, TheVerdictSaysWhatLimitsTheSpeed) {
  EXPECT_EQ(LoaderStatistics{}.verdict(), "no batch was taken");
  const LoaderStatistics decode{
      .threads = 2, .seconds = 10, .consumer_wait = 3.8, .decode = 14, .write = 5, .batches = 5};
  EXPECT_EQ(decode.verdict(),
            "decode-bound: the consumer waited 38 % of the time; about 1.2 more cores would feed it");
  LoaderStatistics other = decode;
  other.consumer_wait = 0.2;
  EXPECT_EQ(other.verdict(),
            "consumer-bound: the consumer waited 2 % of the time; the loader needed 1.9 of its 2 threads");
  other.consumer_wait = 9.9;
  EXPECT_THAT(other.verdict(),
              StartsWith("decode-bound: the consumer waited 99 % of the time and did nothing else"));
  other = decode;
  other.slab_wait = 5;
  EXPECT_THAT(other.verdict(), AllOf(StartsWith("slab-bound"), HasSubstr("the loader waited 50 %")));
  other = decode;
  other.read = 20;
  other.bytes = 50'000'000;
  EXPECT_THAT(other.verdict(), AllOf(StartsWith("read-bound"), HasSubstr("5.0 MB/s")));
  other.reader_threads = 4;  // half busy, and the workers are busier
  EXPECT_THAT(other.verdict(), StartsWith("decode-bound"));
  other.read = 39;
  EXPECT_THAT(other.verdict(), AllOf(StartsWith("read-bound"), HasSubstr("more reader threads")));
  other = decode;
  std::swap(other.decode, other.write);
  EXPECT_THAT(other.verdict(), StartsWith("augment-bound"));
}

TEST(TraceFile, ShowsThreadsSlabsAndConsumer) {
  const TemporaryFolder folder;
  const std::string path = folder.path("trace.json");
  const auto data = std::make_shared<Odd>();
  {
    Loader loader(
        data, {.batch_size = 8, .threads = 1, .reader_threads = 1, .trace = std::make_shared<Trace>(path)});
    Batch batch;
    for (loader.epoch(0); loader.next(batch);) {
    }
  }  // nobody called write
  std::ifstream stream(path);
  const auto json = nlohmann::json::parse(stream);
  std::map<int, std::string> rows;
  std::map<std::string, int> spans;
  for (const auto& event : json["traceEvents"]) {
    if (event["name"] == "thread_name") {
      rows[event["tid"]] = event["args"]["name"];
    } else if (event["ph"] == "X") {
      EXPECT_GE(event["ts"].get<double>(), 0);
      EXPECT_GE(event["dur"].get<double>(), 0);
      ++spans[rows.at(event["tid"]) + " " + event["name"].get<std::string>()];
    }
  }
  EXPECT_EQ(spans["reader 0 read"], 64);
  EXPECT_EQ(spans["worker 0 chunk"] + spans["worker 1 chunk"], 8);
  EXPECT_EQ(spans["slab 0 fill"] + spans["slab 1 fill"] + spans["slab 2 fill"], 8);
  EXPECT_EQ(spans["slab 0 held"] + spans["slab 1 held"] + spans["slab 2 held"], 8);
  EXPECT_EQ(spans["consumer wait"], 8);
  EXPECT_EQ(json["otherData"]["spans_dropped"], 0);
}

TEST(TraceFile, KeepsABoundedNumberOfSpans) {
  const TemporaryFolder folder;
  Trace trace(folder.path("trace.json"));
  Trace::Track& track = trace.track("row");
  const auto now = Trace::Clock::now();
  for (int i = 0; i < (1 << 19) + 5; ++i) {
    track.add("span", now, now, "number", i);
  }
  trace.write();
  std::ifstream stream(folder.path("trace.json"));
  std::stringstream text;
  text << stream.rdbuf();
  EXPECT_THAT(text.str().substr(text.str().size() - 60), HasSubstr("\"spans_dropped\":5"));
  EXPECT_THROW(Trace(folder.path("none/trace.json")).write(), InputError);
}

}  // namespace
}  // namespace millrace
