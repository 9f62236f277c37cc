#pragma once

#include <map>
#include <string>
#include <string_view>

#include "pipeline/image/loader.h"
#include "pipeline/training/trainer.h"

namespace millrace {

/// What the bits of a training run depend on, by name, as text to be shown. Peers compare theirs, and a
/// checkpoint keeps its own.
struct RunDescription {
  using Values = std::map<std::string, std::string>;
  Values options;      ///< Of the run: network, shards, batch size, seed, data, optimizer, transforms ...
  Values environment;  ///< Of the machine: processor, and versions of ours and of libraries.
  bool operator==(const RunDescription&) const = default;
};

/// Of this trainer and loader, on this machine; `more` are the options that only the caller knows: the loss,
/// the schedule.
RunDescription describe_run(Trainer& trainer, const Loader& loader, RunDescription::Values more = {});

/// The kind of the network, and a hash of all layers with their options.
std::string describe_network(nn::Module& network);
/// The environment of a run on `device`.
RunDescription::Values describe_environment(Device device);

/// The value of its option "data".
std::string describe_data(const LoaderState& state);

/// "shards: 4 here, 8 there" for each value that differs, joined by "; "; empty when none does.
std::string differences(const RunDescription::Values& here, std::string_view where_here,
                        const RunDescription::Values& there, std::string_view where_there);

/// "AMD EPYC 9B45", or "unknown processor".
std::string processor_name();

}  // namespace millrace
