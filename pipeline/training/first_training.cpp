#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <link.h>
#include <map>
#include <span>
#include <sstream>

#include "base/hash.h"
#include "base/new_file.h"
#include "pipeline/training/peers.h"
#include "pipeline/training/run_description.h"
#include "pipeline/training/step_check.h"
#include "tensor/config.h"
#include "tensor/device_memory.h"
#include "tensor/gpu/arithmetic.h"
#include "tensor/gpu/engine_choices.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The program or library that this function is part of.
fs::path own_file() {
  fs::path path = "/proc/self/exe";
  dl_iterate_phdr(
      [](dl_phdr_info* object, std::size_t, void* found) {
        const auto here = reinterpret_cast<ElfW(Addr)>(&own_file);
        for (const ElfW(Phdr) & part : std::span(object->dlpi_phdr, object->dlpi_phnum)) {
          const ElfW(Addr) first = object->dlpi_addr + part.p_vaddr;
          if (part.p_type == PT_LOAD && here >= first && here < first + part.p_memsz &&
              *object->dlpi_name != '\0') {  // the program itself has no name
            *static_cast<fs::path*>(found) = object->dlpi_name;
          }
        }
        return 0;
      },
      &path);
  return path;
}

/// Tells two builds apart that have one version.
std::string build() {
  static const std::string hash = fmt::format("{:016x}", Hash().add(contents(own_file())).value());
  return hash;
}

/// All that the result depends on, on one line.
std::string key_of([[maybe_unused]] Device device, const StepCheck& check, const TrainerOptions& options) {
  std::string gpu;
  if constexpr (kWithCuda) {
    gpu = fmt::format("{}; {}", cuda::describe_device(device.index), cuda::describe_libraries());
  }
  const Generator generator = nn::default_generator();
  const std::string network = describe_network(*check.make_module());
  nn::default_generator() = generator;
  return fmt::format("millrace {} {}; {}; {}, {}x{}x{}, {}{}{}", kVersion, build(), gpu, network,
                     check.channels, check.height, check.width, name_of(options.dtype),
                     gpu_arithmetic().tf32 ? ", tf32" : "",
                     options.sum_order == SumOrder::tree ? ", deterministic" : "");
}

/// A file for each key that passed: whoever writes one, writes the same.
class Passed {
 public:
  bool has(const std::string& key) const { return !folder_.empty() && contents(file(key)) == key; }
  void add(const std::string& key, const Say& say) const {
    if (folder_.empty()) {
      return;
    }
    try {
      std::error_code error;  // writing says it better
      fs::create_directories(folder_, error);
      NewFile written(file(key));
      written.write(key.data(), key.size());
      written.commit();
    } catch (const Error& failure) {
      say(fmt::format("warning: the next training compares a step with the CPU's again: {}", failure.what()));
    }
  }

 private:
  fs::path file(const std::string& key) const {
    return folder_ / fmt::format("{:016x}", Hash().add(key).value());
  }
  const fs::path folder_ = user_cache_folder().empty() ? fs::path() : user_cache_folder() / "checked";
};

/// Why it did not pass, on one line; "" when it did.
std::string compare(Device device, const StepCheck& check, const TrainerOptions& options, const Say& say) {
  const std::string what = fmt::format("a step in {} on {}", name_of(options.dtype), device.to_string());
  try {
    const StepDifference difference = compare_with_cpu(check, device, options.dtype, options.sum_order);
    if (difference.within()) {
      say(fmt::format("{} is as the CPU's: differs by {}", what, difference.to_string()));
      return "";
    }
    return fmt::format("{} is not as the CPU's: differs by {}", what, difference.to_string());
  } catch (const std::exception& error) {
    std::string reason = error.what();
    std::ranges::replace(reason, '\n', ' ');
    return fmt::format("{} could not be compared with the CPU's: {}", what, reason);
  }
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> all;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    all.push_back(line);
  }
  return all;
}

}  // namespace

void check_first_training(const StepCheck& check, const TrainerOptions& asked, const Say& say) {
  const TrainerOptions options = resolve(asked);
  if (options.devices[0].is_cpu()) {
    return;
  }
  const Say tell_all = say ? say : [](const std::string&) {};
  const Passed passed;
  std::map<std::string, Device> mine;  // one of each kind that is new
  for (const Device device : options.devices) {
    if (const std::string key = key_of(device, check, options); !passed.has(key)) {
      mine.emplace(key, device);
    }
  }
  Peers peers(options.processes, options.shards);
  std::string told;
  for (const auto& [key, device] : mine) {
    told += key + '\n';
  }
  const std::vector<std::string> wanted = peers.texts("GPUs to be checked", told);
  const int rank = options.processes ? options.processes->rank() : 0;
  std::string failures;
  for (const auto& one : mine) {  // the lowest rank that has such a GPU takes it
    const auto has_key = [&](const std::string& theirs) {
      return std::ranges::count(lines(theirs), one.first) > 0;
    };
    if (std::ranges::find_if(wanted, has_key) - wanted.begin() == rank) {
      if (const std::string failure = compare(one.second, check, options, tell_all); !failure.empty()) {
        failures += failure + '\n';
      }
    }
  }
  for (const std::string& theirs : peers.texts("GPUs that were checked", failures)) {
    if (!theirs.empty()) {
      throw MachineError(
          "train: {}; nothing was trained. Update the driver and cuDNN, or train with another --dtype or "
          "with "
          "--device cpu; millrace check shows more, please send us what it prints",
          lines(theirs).front());
    }
  }
  for (const auto& [key, device] : mine) {
    passed.add(key, tell_all);
  }
}

}  // namespace millrace
