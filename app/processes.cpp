#include "app/processes.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "app/interruption.h"
#include "app/options.h"
#include "base/error.h"
#include "distributed/rendezvous/rendezvous.h"

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

std::shared_ptr<ProcessGroup> ProcessChoice::join(SumOrder sum_order) const {
  return std::make_shared<ProcessGroup>(
      find_place(flags), ProcessGroupOptions{.engine = parse_engine(engine),
                                             .sum_order = sum_order,
                                             .timeout = std::chrono::duration<double>(timeout)});
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
  RunDescription::Values all = mine.options;
  all.insert(mine.environment.begin(), mine.environment.end());
  const std::vector<std::string> told =
      processes.rendezvous().all_gather("options", nlohmann::json(all).dump());
  const auto values = [](const std::string& text) {
    return nlohmann::json::parse(text).get<RunDescription::Values>();
  };
  for (std::size_t r = 1; r < told.size(); ++r) {
    if (told[r] != told[0]) {
      throw InputError(
          "the processes differ: {}; start all of them alike",
          differences(values(told[r]), fmt::format("on rank {}", r), values(told[0]), "on rank 0"));
    }
  }
}

Agreed agree(ProcessGroup& processes, int signal, const Loader& loader) {
  std::array<std::int64_t, 3> mine{signal, loader.samples(), loader.bad_samples()};
  const Tensor sent = from_blob(mine.data(), {std::ssize(mine)}, {.dtype = DType::i64});
  Tensor received = empty({processes.size() * std::ssize(mine)}, {.dtype = DType::i64});
  processes.communicator()->all_gather(sent, received);
  Agreed all;
  for (const std::int64_t* from = received.data<std::int64_t>();
       from != received.data<std::int64_t>() + received.numel(); from += 3) {
    all.signal = std::max(all.signal, static_cast<int>(from[0]));
    all.samples += from[1];
    all.bad_samples += from[2];
  }
  return all;
}

void go_on_with_rank_0(ProcessGroup& processes, Loader& loader) {
  const auto bytes = loader.state().to_bytes();
  const std::string told(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::string first = processes.rendezvous().all_gather("loader", told).front();
  if (first != told) {
    loader.restore(LoaderState::from_bytes(std::as_bytes(std::span(first))));
  }
}

void silence_output() {
  if (std::freopen("/dev/null", "w", stdout) == nullptr) {
    throw MachineError("cannot open /dev/null");
  }
}

}  // namespace millrace::app
