#include "pipeline/training/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/stat.h>

#include "base/crc32c.h"
#include "base/new_file.h"
#include "dataio/file.h"
#include "nn/optimizers/optimizer_options.h"
#include "nn/state.h"
#include "pipeline/image/transform_words.h"
#include "pipeline/training/checkpoint_folder.h"
#include "pipeline/training/checkpoint_state.h"

namespace millrace {

namespace fs = std::filesystem;

namespace {

constexpr const char *kWeights = "weights.safetensors", *kOptimizer = "optimizer.safetensors",
                     *kAverage = "average.safetensors", *kState = "state.pb";

[[noreturn]] void cannot_write(const fs::path& path, int reason) {
  throw MachineError("cannot write {}: {}", path.string(), std::strerror(reason));
}

std::vector<std::byte> read_whole(const fs::path& path) {
  const DataFile file(path, Reading::read);
  std::vector<std::byte> bytes;
  file.read(0, std::min(file.size(), CheckpointState::kMostBytes + 1), bytes);
  return bytes;
}

CheckpointState::File sum_of(const fs::path& path) {
  constexpr std::uint64_t kPiece = std::uint64_t{1} << 20;
  const DataFile file(path, Reading::read);
  std::vector<std::byte> scratch;
  CheckpointState::File sum{.name = path.filename(), .bytes = file.size()};
  for (std::uint64_t at = 0; at < file.size(); at += kPiece) {
    sum.crc32c = crc32c(file.read(at, std::min(kPiece, file.size() - at), scratch), sum.crc32c);
  }
  return sum;
}

void write_files(const fs::path& folder, const Checkpoint& checkpoint) {
  nn::SafetensorsFile weights{checkpoint.trainer.weights, checkpoint.metadata};
  weights.metadata["format"] = "pt";
  nn::save_safetensors(folder / kWeights, weights);
  nn::save_safetensors(folder / kOptimizer, {checkpoint.trainer.optimizer, {{"format", "pt"}}});
  CheckpointState state{.step = checkpoint.trainer.steps,
                        .loader = checkpoint.loader,
                        .run = checkpoint.run,
                        .engines = checkpoint.trainer.engines,
                        .files = {sum_of(folder / kWeights), sum_of(folder / kOptimizer)}};
  if (!checkpoint.trainer.average.empty()) {
    nn::save_safetensors(folder / kAverage, {checkpoint.trainer.average, {{"format", "pt"}}});
    state.files.push_back(sum_of(folder / kAverage));
  }
  const std::string bytes = state.to_bytes();
  NewFile file(folder / kState);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

/// The tensors of a file that is as `state` tells. @throws InputError when it is not.
nn::SafetensorsFile read_checked(const fs::path& path, const CheckpointState& state) {
  const CheckpointState::File* expected = state.find(path.filename().string());
  if (expected == nullptr) {
    throw InputError("{} does not tell of {}", kState, path.filename().string());
  }
  const CheckpointState::File found = sum_of(path);
  if (found.bytes != expected->bytes) {
    throw InputError("{} has {} bytes, expected {}", found.name, found.bytes, expected->bytes);
  }
  if (found.crc32c != expected->crc32c) {
    throw InputError("{} has the checksum {:08x}, expected {:08x}", found.name, found.crc32c,
                     expected->crc32c);
  }
  return nn::load_safetensors(path);
}

CheckpointState read_state(const fs::path& path) {
  try {
    return CheckpointState::from_bytes(read_whole(path));
  } catch (const OtherFormat&) {
    throw;
  } catch (const InputError& error) {
    throw InputError("{}: {}", kState, error.what());
  }
}

}  // namespace

fs::path save_checkpoint(const fs::path& folder, const Checkpoint& checkpoint) {
  const fs::path place = folder / checkpoint_name(checkpoint.trainer.steps);
  const fs::path beside = place.string() + kUnfinished, replaced = place.string() + kReplaced;
  std::error_code ignored;
  fs::remove_all(beside, ignored);
  if (::mkdir(beside.c_str(), 0777) != 0) {
    cannot_write(beside, errno);
  }
  try {
    write_files(beside, checkpoint);
    sync_folder(beside);
    fs::rename(place, replaced, ignored);  // one that is damaged, or that the run went back behind
    if (::rename(beside.c_str(), place.c_str()) != 0) {
      const int reason = errno;
      fs::rename(replaced, place, ignored);
      cannot_write(place, reason);
    }
    sync_folder(folder);
  } catch (...) {
    fs::remove_all(beside, ignored);  // a full disk has room again
    throw;
  }
  fs::remove_all(replaced, ignored);
  return place;
}

Checkpoint load_checkpoint(const fs::path& path) {
  try {
    CheckpointState state = read_state(path / kState);
    nn::SafetensorsFile weights = read_checked(path / kWeights, state);
    nn::SafetensorsFile optimizer = read_checked(path / kOptimizer, state);
    nn::SafetensorsFile average;
    if (state.find(kAverage) != nullptr) {
      average = read_checked(path / kAverage, state);
    }
    return {.trainer = {.steps = state.step,
                        .weights = std::move(weights.tensors),
                        .optimizer = std::move(optimizer.tensors),
                        .average = std::move(average.tensors),
                        .engines = std::move(state.engines)},
            .loader = state.loader,
            .run = std::move(state.run),
            .metadata = std::move(weights.metadata)};
  } catch (const OtherFormat& error) {
    throw OtherFormat("{}: {}", path.string(), error.what());
  } catch (const InputError& error) {
    throw InputError("{} is no whole checkpoint: {}", path.string(), error.what());
  }
}

std::optional<FoundCheckpoint> newest_checkpoint(const fs::path& place, const Say& say) {
  std::vector<fs::path> candidates = checkpoints_in(place);
  const fs::path one = place.has_filename() ? place : place.parent_path();  // "step-000000123/" as well
  if (step_of(one)) {
    candidates = {one};
  }
  for (; !candidates.empty(); candidates.pop_back()) {
    try {
      return FoundCheckpoint{candidates.back(), load_checkpoint(candidates.back())};
    } catch (const OtherFormat&) {
      throw;  // an older one in its place would lose steps
    } catch (const InputError& error) {
      say(error.what());
    }
  }
  return std::nullopt;
}

namespace {

/// @throws InputError where a run's optimizer, as it was described, is of a kind that is not known here.
void check_optimizer(std::string_view described) {
  while (!described.empty()) {  // "SGD, learning rate 0.1, ... of a to b; Adam, ..."
    std::string_view group = trim(take(described, ';'));
    try {
      nn::find_optimizer(take(group, ','));
    } catch (const InputError& error) {
      throw InputError("resume: the checkpoint's {}, or go on with the Millrace that wrote it", error.what());
    }
  }
}

}  // namespace

void resume(const Checkpoint& from, const RunDescription& run, Trainer& trainer, Loader& loader,
            const Say& say) {
  RunDescription::Values now = run.options;
  if (const auto data = now.find("data"); data != now.end()) {  // as the checkpoint tells it
    data->second = describe_data(loader.state(from.loader.fingerprint_version));
  }
  if (const std::string others = differences(from.run.options, "in the checkpoint", now, "now");
      !others.empty()) {
    if (const auto was = from.run.options.find("optimizer"); was != from.run.options.end()) {
      check_optimizer(was->second);
    }
    throw InputError("resume: other options than the checkpoint's: {}; give the same", others);
  }
  if (const std::string others =
          differences(from.run.environment, "in the checkpoint", run.environment, "now");
      !others.empty()) {
    say(fmt::format("resume: bits may differ from those of an undisturbed run: {}", others));
  }
  trainer.restore(from.trainer);
  loader.restore(from.loader);
}

}  // namespace millrace
