#include "pipeline/image/convert.h"

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_pipeline.h>
#include <oneapi/tbb/task_arena.h>
#include <vector>

#include "base/cores.h"
#include "base/error.h"
#include "dataio/formats/record_writer.h"
#include "dataio/mapping.h"
#include "pipeline/image/restart_rows.h"

namespace millrace {

namespace {

/// A record on its way; as many as are worked on at once, used again and again.
struct Item {
  std::int64_t index = 0;
  std::vector<std::byte> scratch, bytes;
  Sample sample;
  std::string source;
  RestartRows restart_rows;
};

void rewrite(Item& item) {
  try {
    item.bytes = item.restart_rows.rewrite(item.bytes);
  } catch (const InputError& error) {
    throw InputError("{}: {}", item.source, error.what());
  }
}

void prepare(Item& item, const Dataset& from, bool restart_rows) {
  do {
    item.sample = from.read(item.index, item.scratch);
    item.bytes.assign(item.sample.bytes.begin(), item.sample.bytes.end());
  } while (!mapped_reads_intact());  // once more: what is lost is then an error
  item.source = from.describe(item.index);
  if (restart_rows && item.sample.encoding == Encoding::jpeg) {
    rewrite(item);
  }
  item.sample.bytes = item.bytes;
}

}  // namespace

Converted convert(const Dataset& from, const std::filesystem::path& to, const ConvertOptions& options) {
  namespace tbb = oneapi::tbb;
  RecordWriter writer(to, from.info(),
                      {.part_size = options.part_size, .restart_rows = options.restart_rows});
  const int threads = options.threads > 0 ? options.threads : available_cores();
  std::vector<Item> items(static_cast<std::size_t>(4 * threads));
  std::int64_t next = 0;
  const auto take = [&](tbb::flow_control& control) -> Item* {
    if (next == from.size()) {
      control.stop();
      return nullptr;
    }
    // Records leave in order, so the one that was here before has left.
    Item& item = items[static_cast<std::size_t>(next) % items.size()];
    item.index = next++;
    return &item;
  };
  const auto work = [&](Item* item) {
    prepare(*item, from, options.restart_rows);
    return item;
  };
  const auto write = [&](Item* item) {
    writer.add(item->sample, item->source);
    if (options.on_progress) {
      options.on_progress(writer.records());
    }
  };
  // oneTBB's own limit is the number of cores.
  const tbb::global_control limit(tbb::global_control::max_allowed_parallelism,
                                  static_cast<std::size_t>(threads));
  tbb::task_arena(threads).execute([&] {
    tbb::parallel_pipeline(items.size(),
                           tbb::make_filter<void, Item*>(tbb::filter_mode::serial_in_order, take) &
                               tbb::make_filter<Item*, Item*>(tbb::filter_mode::parallel, work) &
                               tbb::make_filter<Item*, void>(tbb::filter_mode::serial_in_order, write));
  });
  writer.finish();
  return {.records = writer.records(), .bytes = writer.bytes(), .files = writer.files()};
}

}  // namespace millrace
