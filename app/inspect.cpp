#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <filesystem>
#include <fmt/core.h>

#include "app/commands.h"
#include "app/options.h"
#include "app/output/measure.h"
#include "app/output/progress.h"
#include "dataio/formats/records.h"
#include "dataio/permutation.h"
#include "pipeline/image/decode.h"
#include "pipeline/image/verify.h"

namespace millrace::app {

namespace {

// Of larger data sets, this many samples are drawn at random.
constexpr std::int64_t kLookedAt = 1000;
constexpr std::int64_t kCounted = 10'000'000;  // labels

struct InspectOptions {
  std::string data;
  bool verify = false, test = false;
};

/// What some samples of a data set are like.
struct Survey {
  std::int64_t samples = 0, bytes = 0, unreadable = 0;
  std::array<std::int64_t, 4> encodings{};
  std::vector<Size2> sizes;  ///< Sorted by their pixels.
};

/// The size that a sample's header tells. @throws InputError that names the sample when it is damaged.
Size2 open(Decoder& decoder, const Dataset& data, std::int64_t index, const Sample& sample) {
  const bool raw = sample.encoding == Encoding::raw_hwc || sample.encoding == Encoding::raw_chw;
  try {
    return decoder.open(sample, raw ? sample.channels : 3);
  } catch (const InputError& error) {
    throw InputError("{}: {}", data.describe(index), error.what());
  }
}

Survey survey(const Dataset& data) {
  Survey result;
  result.samples = std::min(data.size(), kLookedAt);
  const Permutation order(data.size(), 0, 0);
  std::vector<std::byte> scratch;
  Decoder decoder;
  for (std::int64_t i = 0; i < result.samples; ++i) {
    try {
      const Sample sample = data.read(order(i), scratch);
      result.sizes.push_back(open(decoder, data, order(i), sample));
      result.bytes += static_cast<std::int64_t>(sample.bytes.size());
      ++result.encodings[static_cast<std::size_t>(sample.encoding)];
    } catch (const InputError&) {
      ++result.unreadable;
    }
  }
  std::sort(result.sizes.begin(), result.sizes.end(),
            [](Size2 a, Size2 b) { return a.height * a.width < b.height * b.width; });
  return result;
}

std::string commas(std::int64_t value) { return with_commas(static_cast<double>(value)); }

/// "2: cat 12, dog 10", the most frequent ones first.
std::string classes(const Dataset& data) {
  constexpr std::size_t kShown = 10;
  const std::vector<std::string>& names = data.info().classes;
  std::vector<std::pair<std::int64_t, std::size_t>> counts;  // negative, so that they sort as they are shown
  for (std::size_t i = 0; i < names.size(); ++i) {
    counts.emplace_back(0, i);
  }
  const Permutation order(data.size(), 0, 0);
  const std::int64_t counted = std::min(data.size(), kCounted);
  for (std::int64_t i = 0; i < counted && !names.empty(); ++i) {
    try {
      const auto label = static_cast<std::size_t>(data.label(counted == data.size() ? i : order(i)));
      if (label < counts.size()) {
        --counts[label].first;
      }
    } catch (const InputError&) {  // unreadable; counted elsewhere
    }
  }
  std::sort(counts.begin(), counts.end());
  std::string text = commas(static_cast<std::int64_t>(names.size()));
  for (std::size_t i = 0; i < std::min(counts.size(), kShown); ++i) {
    text += fmt::format("{}{} {}", i == 0 ? ": " : ", ", names[counts[i].second], commas(-counts[i].first));
  }
  return text + (counts.size() > kShown ? ", ..." : "") +
         (counted < data.size() ? fmt::format(" (of {} drawn at random)", commas(counted)) : "");
}

void print_records(const Records& records) {
  std::int64_t bytes = 0;
  for (const RecordFile& file : records.files()) {
    bytes += static_cast<std::int64_t>(file.header().file_size);
  }
  const RecordHeader& header = records.files()[0].header();
  fmt::print("  format       records, version {}, {}, {} bytes\n", RecordHeader::kVersion,
             counted(static_cast<std::int64_t>(records.files().size()), "file"), commas(bytes));
  fmt::print("  restart rows {}\n", header.flags & RecordHeader::kRestartRows ? "yes" : "no");
}

void print(const Dataset& data, const std::string& name) {
  const Survey seen = survey(data);
  fmt::print("{}\n  samples      {}\n", name, commas(data.size()));
  if (const auto* records = dynamic_cast<const Records*>(&data)) {
    print_records(*records);
  }
  fmt::print("  classes      {}\n", classes(data));
  fmt::print("  fingerprint  {:016x}\n", data.fingerprint());
  fmt::print("in {} of them, drawn at random:\n", commas(seen.samples));
  constexpr std::array<const char*, 4> kNames = {"raw (HWC)", "raw (CHW)", "JPEG", "PNG"};
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (seen.encodings[i] > 0) {
      fmt::print("  {:12} {}\n", kNames[i], commas(seen.encodings[i]));
    }
  }
  if (!seen.sizes.empty()) {
    const Size2 small = seen.sizes.front(), middle = seen.sizes[seen.sizes.size() / 2],
                large = seen.sizes.back();
    fmt::print("  sizes        {} x {} to {} x {} (height x width), median {} x {}\n", small.height,
               small.width, large.height, large.width, middle.height, middle.width);
    fmt::print("  bytes        {} each on average\n",
               commas(seen.bytes / static_cast<std::int64_t>(seen.sizes.size())));
  }
  if (seen.unreadable > 0) {
    fmt::print("  unreadable   {}; --verify names them\n", commas(seen.unreadable));
  }
}

/// Names each sample that is damaged. @throws InputError when there is one.
void verify(const Dataset& data, const std::string& name) {
  Progress progress("verifying", data.size());
  const Verified verified =
      millrace::verify(data, {.on_damaged =
                                  [&](const std::string& reason) {
                                    progress.clear();
                                    fmt::print("damaged: {}\n", reason);
                                  },
                              .on_progress = [&](std::int64_t done) { progress.update(done, done); }});
  progress.clear();
  if (verified.damaged > 0) {
    throw InputError("{} of {} samples of {} are damaged; they are named above", verified.damaged,
                     data.size(), name);
  }
  const bool has_checksums = name.starts_with("records:") || name.starts_with("tfrecord:");
  fmt::print("verified: all {} samples were read{}{}\n", commas(data.size()),
             has_checksums ? " and have the right checksums" : "; their format has no checksums",
             verified.decoded > 0
                 ? fmt::format("; decoded whole: {} JPEG and PNG images", commas(verified.decoded))
                 : "");
}

void inspect(const InspectOptions& o) {
  std::error_code error;
  const bool is_file = std::filesystem::is_regular_file(o.data, error);
  const std::string name = (is_file ? "records:" : "") + o.data;
  const auto data = open_dataset(
      name, {.train = !o.test, .reading = o.verify ? Reading::read : Reading::map, .verify = Verify::always});
  print(*data, name);
  if (o.verify) {
    verify(*data, name);
  }
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto options = std::make_shared<InspectOptions>();
  InspectOptions& o = *options;
  CLI::App& command = *app.add_subcommand("inspect", "Show what a data set holds, and whether it is whole");
  command.add_option("DATA", o.data, fmt::format("A records file, or {}", dataset_kinds()))->required();
  command.add_flag("--verify", o.verify, "Read every sample, decode it whole, and name each damaged one");
  command.add_flag("--test", o.test, "Take the test part, where the data set has one");
  command.callback([options] { inspect(*options); });
}

}  // namespace millrace::app
