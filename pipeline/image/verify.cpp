#include "pipeline/image/verify.h"

#include <algorithm>
#include <oneapi/tbb/enumerable_thread_specific.h>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_pipeline.h>
#include <oneapi/tbb/task_arena.h>
#include <vector>

#include "base/cores.h"
#include "base/error.h"
#include "dataio/mapping.h"
#include "pipeline/image/decode.h"

namespace millrace {

namespace {

/// What a thread keeps from sample to sample.
struct Reader {
  std::vector<std::byte> scratch;
  Decoder decoder;
};

struct CheckedChunk {
  std::int64_t end = 0, decoded = 0;
  std::vector<std::string> damaged;
};

/// Whether there was something to decode. @throws InputError naming the sample when it is damaged.
bool read_whole(const Dataset& data, std::int64_t index, Reader& reader) {
  const Sample sample = data.read(index, reader.scratch);
  try {
    const Size2 size = reader.decoder.open(sample, data.info().channels);
    reader.decoder.decode(SamplePlan(size));
  } catch (const InputError& error) {
    throw InputError("{}: {}", data.describe(index), error.what());
  }
  return sample.encoding == Encoding::jpeg || sample.encoding == Encoding::png;
}

void verify_one(const Dataset& data, std::int64_t index, Reader& reader, CheckedChunk& chunk) {
  for (;;) {
    std::string reason;
    bool decoded = false;
    try {
      decoded = read_whole(data, index, reader);
    } catch (const InputError& error) {
      reason = error.what();
    }
    if (!mapped_reads_intact()) {
      continue;  // once more: what is lost is then an error
    }
    chunk.decoded += decoded ? 1 : 0;
    if (!reason.empty()) {
      chunk.damaged.push_back(std::move(reason));
    }
    return;
  }
}

}  // namespace

Verified verify(const Dataset& data, const VerifyOptions& options) {
  namespace tbb = oneapi::tbb;
  constexpr std::int64_t kChunk = 16;
  const int threads = options.threads > 0 ? options.threads : available_cores();
  tbb::enumerable_thread_specific<Reader> readers;
  Verified result;
  std::int64_t next = 0;
  const auto take = [&](tbb::flow_control& control) -> std::int64_t {
    if (next >= data.size()) {
      control.stop();
      return 0;
    }
    return std::exchange(next, next + kChunk);
  };
  const auto work = [&](std::int64_t begin) {
    CheckedChunk chunk{.end = std::min(begin + kChunk, data.size())};
    for (std::int64_t i = begin; i < chunk.end; ++i) {
      verify_one(data, i, readers.local(), chunk);
    }
    return chunk;
  };
  const auto tell = [&](const CheckedChunk& chunk) {
    for (const std::string& reason : chunk.damaged) {
      if (options.on_damaged) {
        options.on_damaged(reason);
      }
    }
    result.damaged += std::ssize(chunk.damaged);
    result.decoded += chunk.decoded;
    if (options.on_progress) {
      options.on_progress(chunk.end);
    }
  };
  // oneTBB's own limit is the number of cores.
  const tbb::global_control limit(tbb::global_control::max_allowed_parallelism,
                                  static_cast<std::size_t>(threads));
  tbb::task_arena(threads).execute([&] {
    tbb::parallel_pipeline(
        static_cast<std::size_t>(4 * threads),
        tbb::make_filter<void, std::int64_t>(tbb::filter_mode::serial_in_order, take) &
            tbb::make_filter<std::int64_t, CheckedChunk>(tbb::filter_mode::parallel, work) &
            tbb::make_filter<CheckedChunk, void>(tbb::filter_mode::serial_in_order, tell));
  });
  return result;
}

}  // namespace millrace
