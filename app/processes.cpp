#include "app/processes.h"

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "app/interruption.h"
#include "app/options.h"
#include "tensor/error.h"

namespace millrace::app {

void ProcessChoice::add_to(CLI::App& command) {
  command.add_option("--rank", flags.rank, "Of this process (default: as torchrun, mpirun or srun says)");
  command.add_option("--world-size", flags.size, "Processes that train together");
  command.add_option("--local-rank", flags.local_rank, "Of this process among those on this machine");
  command.add_option("--master", flags.master,
                     "HOST:PORT where rank 0 listens (default: MASTER_ADDR:MASTER_PORT)");
  command.add_option("--engine", engine, "Between processes: gloo, mpi, or auto: mpi under a bare mpirun")
      ->check(CLI::IsMember({"auto", "gloo", "mpi"}));
  command.add_option("--timeout", timeout, "Seconds without news after which a process is given up")
      ->check(in_range(0.1, 1e8));
}

std::shared_ptr<ProcessGroup> ProcessChoice::join(SumOrder sums) const {
  return std::make_shared<ProcessGroup>(
      find_place(flags),
      ProcessGroupOptions{
          .engine = parse_engine(engine), .order = sums, .timeout = std::chrono::duration<double>(timeout)});
}

void run_together(ProcessGroup& processes, const std::function<void()>& body) {
  try {
    body();
    processes.communicator()->barrier();
  } catch (const Interrupted&) {
    processes.communicator()->barrier();  // until rank 0 has saved
    throw;
  } catch (const std::exception& error) {
    processes.rendezvous().fail(error.what());
    throw;
  }
}

void require_same(ProcessGroup& processes, const RunDescription& mine) {
  const nlohmann::json told{{"options", mine.options}, {"environment", mine.environment}};
  const nlohmann::json first = nlohmann::json::parse(processes.rendezvous().all_gather(told.dump()).front());
  RunDescription::Values here = mine.options, there = first["options"];
  here.insert(mine.environment.begin(), mine.environment.end());
  const RunDescription::Values environment = first["environment"];
  there.insert(environment.begin(), environment.end());
  const std::string differing =
      differences(here, fmt::format("on rank {}", processes.rank()), there, "on rank 0");
  if (!differing.empty()) {
    throw InputError("the processes differ: {}; start all of them alike", differing);
  }
}

int agreed_signal(ProcessGroup& processes, int mine) {
  if (processes.size() == 1) {
    return mine;
  }
  const Tensor sent = full({1}, mine, {.dtype = DType::i32});
  Tensor received = empty({processes.size()}, {.dtype = DType::i32});
  processes.communicator()->all_gather(sent, received);
  return *std::max_element(received.data<std::int32_t>(), received.data<std::int32_t>() + received.numel());
}

void go_on_with_rank_0(ProcessGroup& processes, Loader& loader) {
  const auto bytes = loader.state().to_bytes();
  const std::string told(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::string first = processes.rendezvous().all_gather(told).front();
  if (first != told) {
    loader.restore(LoaderState::from_bytes(std::as_bytes(std::span(first))));
  }
}

std::int64_t total(ProcessGroup& processes, std::int64_t count) {
  std::int64_t sum = 0;
  for (const std::string& text : processes.rendezvous().all_gather(std::to_string(count))) {
    sum += std::stoll(text);
  }
  return sum;
}

void silence_output() {
  if (std::freopen("/dev/null", "w", stdout) == nullptr) {
    throw MachineError("cannot open /dev/null");
  }
}

}  // namespace millrace::app
