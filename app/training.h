#pragma once

#include "app/output/json_log.h"
#include "app/report.h"
#include "distributed/group/process_group.h"
#include "pipeline/image/loader.h"
#include "pipeline/training/checkpoint.h"
#include "pipeline/training/trainer.h"

namespace millrace::app {

/// What works together while a network is trained.
struct Training {
  Trainer& trainer;
  Loader& loader;
  Loader* test;                // or null
  Checkpointer* checkpointer;  // or null
  Report& report;
  JsonLog& log;
  ProcessGroup& processes;
  double max_bad_rate;
};

/// After every step, and every evaluation of `used`: what the processes decide together.
/// @throws Interrupted when a signal to any of them asks for it. @throws InputError when too much of the data
/// is bad.
void leave_if_asked(const Training& training, const Loader& used);

}  // namespace millrace::app
