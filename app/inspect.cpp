#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <filesystem>
#include <fmt/core.h>

#include "app/commands.h"
#include "app/measure.h"
#include "app/options.h"
#include "app/progress.h"
#include "dataio/permutation.h"
#include "dataio/records.h"
#include "pipeline/decode.h"

namespace millrace::app {

namespace {

constexpr std::int64_t kLookedAt = 1000;  // samples

struct InspectOptions {
  std::string data;
  bool verify = false, test = false;
};

/// What some samples of a data set are like.
struct Survey {
  std::int64_t samples = 0, bytes = 0, unreadable = 0;
  std::array<std::int64_t, 4> encodings{};
  std::vector<std::int64_t> classes;
  std::vector<Size2> sizes;  ///< Sorted by their pixels.
};

Survey survey(const Dataset& data) {
  Survey result;
  result.samples = std::min(data.size(), kLookedAt);
  result.classes.resize(data.info().classes.size());
  const Permutation order(data.size(), 0, 0);
  std::vector<std::byte> scratch;
  Decoder decoder;
  for (std::int64_t i = 0; i < result.samples; ++i) {
    try {
      const Sample sample = data.read(order(i), scratch);
      const bool raw = sample.encoding == Encoding::raw_hwc || sample.encoding == Encoding::raw_chw;
      result.sizes.push_back(decoder.open(sample, raw ? sample.channels : 3));
      result.bytes += static_cast<std::int64_t>(sample.bytes.size());
      ++result.encodings[static_cast<std::size_t>(sample.encoding)];
      if (const auto label = static_cast<std::size_t>(sample.label); label < result.classes.size()) {
        ++result.classes[label];
      }
    } catch (const InputError&) {
      ++result.unreadable;
    }
  }
  std::sort(result.sizes.begin(), result.sizes.end(),
            [](Size2 a, Size2 b) { return a.height * a.width < b.height * b.width; });
  return result;
}

std::string commas(std::int64_t value) { return with_commas(static_cast<double>(value)); }

/// "cat 10, dog 12", the most frequent ones first.
std::string class_counts(const Survey& survey, const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 10;
  std::vector<std::size_t> order(names.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = i;
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return survey.classes[a] > survey.classes[b]; });
  std::string text;
  for (std::size_t i = 0; i < std::min(order.size(), kShown); ++i) {
    text += fmt::format("{}{} {}", i == 0 ? "" : ", ", names[order[i]], commas(survey.classes[order[i]]));
  }
  return text + (order.size() > kShown ? ", ..." : "");
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
  const DatasetInfo& info = data.info();
  fmt::print("{}\n  samples      {}\n", name, commas(data.size()));
  if (const auto* records = dynamic_cast<const Records*>(&data)) {
    print_records(*records);
  }
  fmt::print("  classes      {}\n", info.classes.size());
  fmt::print("  fingerprint  {:016x}\n", data.fingerprint());
  fmt::print("in {} of them, drawn at random:\n", commas(seen.samples));
  if (!info.classes.empty()) {
    fmt::print("  classes      {}\n", class_counts(seen, info.classes));
  }
  constexpr std::array<const char*, 4> kNames = {"raw (HWC)", "raw (CHW)", "JPEG", "PNG or other"};
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

/// Reads everything and names each sample that is damaged. @throws InputError when there is one.
void verify(const Dataset& data, const std::string& name) {
  std::int64_t damaged = 0;
  std::vector<std::byte> scratch;
  Progress progress("verifying", data.size());
  for (std::int64_t i = 0; i < data.size(); ++i) {
    try {
      data.read(i, scratch);
    } catch (const InputError& error) {
      progress.clear();
      fmt::print("damaged: {}\n", error.what());
      ++damaged;
    }
    progress.update(i + 1, i + 1);
  }
  if (damaged > 0) {
    throw InputError("{} of {} samples of {} are damaged; they are named above", damaged, data.size(), name);
  }
  progress.clear();
  fmt::print("verified: all {} samples can be read and have the right checksum, where the format has one\n",
             commas(data.size()));
}

void inspect(const InspectOptions& o) {
  std::error_code error;
  const bool is_file = std::filesystem::is_regular_file(o.data, error);
  const std::string name = (is_file ? "records:" : "") + o.data;
  const auto data =
      open_dataset(name, {.train = !o.test, .reading = Reading::read, .verify = Verify::always});
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
  command.add_option("DATA", o.data, "A data set (images:DIR, records:GLOB, ...) or a records file")
      ->required();
  command.add_flag("--verify", o.verify, "Read every sample and name each damaged one");
  command.add_flag("--test", o.test, "Take the test part, where the data set has one");
  command.callback([options] { inspect(*options); });
}

}  // namespace millrace::app
