#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

#include "distributed/group/join.h"
#include "distributed/group/process_group.h"
#include "pipeline/training/run_description.h"

namespace millrace::app {

/// Who this process is among those that train together: `--rank`, `--world-size`, `--local-rank`, `--master`,
/// `--engine`, `--timeout`.
struct ProcessChoice {
  PlaceFlags flags;
  std::string engine = "auto";
  double timeout = 300;  ///< Seconds.

  void add_to(CLI::App& command);
  /// Joins the others; a group of one where nothing says that there are any. @throws as ProcessGroup does.
  std::shared_ptr<ProcessGroup> join(SumOrder sum_order) const;
};

/// Runs `body` as one of the processes, which end together. What it throws is told to the others first,
/// unless all were interrupted.
void run_together(ProcessGroup& processes, const std::function<void()>& body);

/// @throws InputError in all of them, naming what a process has otherwise than rank 0, and both values.
void require_same(ProcessGroup& processes, const RunDescription& mine);

/// What the processes tell each other after a step or an evaluation; the same in all of them.
struct Agreed {
  int signal = 0;  ///< That any of them has noted; 0: none.
  std::int64_t samples = 0, bad_samples = 0;
};
/// All call it.
Agreed agree(ProcessGroup& processes, int signal, const Loader& loader);

/// The other loaders go on where rank 0's stands; weights follow with the trainer's next step.
void go_on_with_rank_0(ProcessGroup& processes, Loader& loader);

/// For ranks but 0: what is printed goes nowhere.
void silence_output();

}  // namespace millrace::app
