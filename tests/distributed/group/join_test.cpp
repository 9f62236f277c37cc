#include "distributed/group/join.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>

#include "base/error.h"

namespace millrace {
namespace {

using Variables = std::map<std::string, std::string>;

Environment in(const Variables& variables) {
  return [&variables](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional<std::string>(found->second);
  };
}

struct Case {
  const char* name;
  PlaceFlags flags;
  Variables variables;
  Place expected;
  std::string error;  // part of it; else there is none
};

const Place kAlone;

const Case kCases[] = {
    {"nothing", {}, {}, kAlone, ""},
    {"flags",
     {.rank = 1, .size = 4, .local_rank = 1, .master = "node7:29500"},
     {},
     {.rank = 1,
      .size = 4,
      .local_rank = 1,
      .local_size = 4,
      .master_host = "node7",
      .master_port = 29500,
      .told_by = "--rank"},
     ""},
    {"flags before variables",
     {.rank = 0, .size = 2, .master = "[::1]:80"},
     {{"RANK", "7"}, {"WORLD_SIZE", "8"}, {"MASTER_ADDR", "far"}, {"MASTER_PORT", "1"}},
     {.rank = 0, .size = 2, .local_size = 2, .master_host = "::1", .master_port = 80, .told_by = "--rank"},
     ""},
    {"torchrun",
     {},
     {{"RANK", "5"},
      {"WORLD_SIZE", "8"},
      {"LOCAL_RANK", "1"},
      {"LOCAL_WORLD_SIZE", "4"},
      {"MASTER_ADDR", "10.0.0.1"},
      {"MASTER_PORT", "29400"},
      {"TORCHELASTIC_RUN_ID", "abc"}},
     {.rank = 5,
      .size = 8,
      .local_rank = 1,
      .local_size = 4,
      .master_host = "10.0.0.1",
      .master_port = 29400,
      .token = "abc",
      .told_by = "RANK"},
     ""},
    {"torchrun before OpenMPI",
     {},
     {{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}},
     {.rank = 1, .size = 2, .local_rank = 1, .local_size = 2, .told_by = "RANK"},
     ""},
    {"OpenMPI",
     {},
     {{"OMPI_COMM_WORLD_RANK", "3"},
      {"OMPI_COMM_WORLD_SIZE", "4"},
      {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
      {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}},
     {.rank = 3, .size = 4, .local_rank = 1, .local_size = 2, .told_by = "OMPI_COMM_WORLD_RANK"},
     ""},
    {"PMI",
     {},
     {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}},
     {.rank = 1, .size = 2, .local_rank = 1, .local_size = 2, .told_by = "PMI_RANK"},
     ""},
    {"a step of Slurm",
     {},
     {{"SLURM_PROCID", "6"},
      {"SLURM_NTASKS", "8"},
      {"SLURM_STEP_NUM_TASKS", "8"},
      {"SLURM_LOCALID", "2"},
      {"SLURM_STEP_TASKS_PER_NODE", "4(x2)"},
      {"SLURM_JOB_ID", "17"}},
     {.rank = 6, .size = 8, .local_rank = 2, .local_size = 4, .token = "17", .told_by = "SLURM_PROCID"},
     ""},
    {"a batch script of Slurm is one process",
     {},
     {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}},
     kAlone,
     ""},
    {"the launcher's token",
     {},
     {{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"TORCHELASTIC_RUN_ID", "abc"}, {"MILLRACE_RUN_TOKEN", "t"}},
     {.token = "t", .told_by = "RANK"},
     ""},
    {"a name of a machine",
     {.master = "node-1.my_net:1"},
     {},
     {.master_host = "node-1.my_net", .master_port = 1},
     ""},
    {"an IPv6 address in brackets",
     {},
     {{"MASTER_ADDR", "[::1]"}, {"MASTER_PORT", "1"}},
     {.master_host = "::1", .master_port = 1},
     ""},

    {"rank without size", {}, {{"RANK", "1"}}, {}, "RANK is given and WORLD_SIZE is not"},
    {"size without rank", {}, {{"WORLD_SIZE", "2"}}, {}, "WORLD_SIZE is given and RANK is not"},
    {"a flag without the other", {.size = 2}, {}, {}, "--world-size is given and --rank is not"},
    {"a local rank alone", {.local_rank = 0}, {}, {}, "--local-rank is given without"},
    {"rank as large as size", {}, {{"RANK", "2"}, {"WORLD_SIZE", "2"}}, {}, "RANK is 2 and WORLD_SIZE is 2"},
    {"negative rank", {.rank = -1, .size = 2}, {}, {}, "--rank is -1"},
    {"size of none", {.rank = 0, .size = 0}, {}, {}, "--world-size is 0"},
    {"no number", {}, {{"RANK", "one"}, {"WORLD_SIZE", "2"}}, {}, "RANK is 'one'"},
    {"a number with more behind it", {}, {{"RANK", "1x"}, {"WORLD_SIZE", "2"}}, {}, "RANK is '1x'"},
    {"local rank as large as local size",
     {},
     {{"RANK", "1"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "2"}, {"LOCAL_WORLD_SIZE", "2"}},
     {},
     "LOCAL_RANK is 2 and LOCAL_WORLD_SIZE is 2"},
    {"more on the machine than there are",
     {},
     {{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "1"}, {"LOCAL_WORLD_SIZE", "4"}},
     {},
     "LOCAL_WORLD_SIZE is 4 for WORLD_SIZE of 2"},
    {"address without port", {}, {{"MASTER_ADDR", "a"}}, {}, "MASTER_ADDR is set and MASTER_PORT is not"},
    {"port without address", {}, {{"MASTER_PORT", "1"}}, {}, "MASTER_PORT is set and MASTER_ADDR is not"},
    {"a port that is none", {.master = "a:70000"}, {}, {}, "--master is 'a:70000'"},
    {"a host that is none", {.master = "a b:1"}, {}, {}, "--master is 'a b:1'"},
    {"half an IPv6 address", {.master = "::1"}, {}, {}, "--master is '::1'"},
    {"a wrong address", {.master = "300.1.1.1:1"}, {}, {}, "--master is '300.1.1.1:1'"},
    {"no host", {.master = ":1"}, {}, {}, "--master is ':1'"},
    {"a URL", {}, {{"MASTER_ADDR", "tcp://a"}, {"MASTER_PORT", "1"}}, {}, "is 'tcp://a:1'"},
    {"a master without port", {.master = "a"}, {}, {}, "expected HOST:PORT"},
};

TEST(Join, Table) {
  for (const Case& one : kCases) {
    SCOPED_TRACE(one.name);
    if (one.error.empty()) {
      const Place place = find_place(one.flags, in(one.variables));
      EXPECT_EQ(place, one.expected) << place.rank << " of " << place.size << ", local " << place.local_rank
                                     << " of " << place.local_size << " told by " << place.told_by;
      continue;
    }
    try {
      find_place(one.flags, in(one.variables));
      FAIL() << "expected an error with: " << one.error;
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(one.error));
    }
  }
}

}  // namespace
}  // namespace millrace
