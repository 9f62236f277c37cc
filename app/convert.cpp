#include "pipeline/image/convert.h"

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include "app/commands.h"
#include "app/options.h"
#include "app/output/measure.h"
#include "app/output/progress.h"

namespace millrace::app {

namespace {

struct ConvertCommand {
  std::string from;
  std::filesystem::path to;
  std::int64_t part_size = 0;
  bool restart_rows = false, test = false;
  int threads = 0;
};

void run(const ConvertCommand& o) {
  const auto data = open_dataset(o.from, {.train = !o.test});
  Converted done;
  {
    Progress progress("converting", data->size());
    done = convert(*data, o.to,
                   {.part_size = o.part_size,
                    .restart_rows = o.restart_rows,
                    .threads = o.threads,
                    .on_progress = [&](std::int64_t records) { progress.update(records, records); }});
  }
  fmt::print("{} to {}: {}, {} bytes in {}\n", o.from, o.to.string(), counted(done.records, "record"),
             with_commas(static_cast<double>(done.bytes)), counted(done.files, "file"));
}

}  // namespace

void add_convert(CLI::App& app) {
  auto options = std::make_shared<ConvertCommand>();
  ConvertCommand& o = *options;
  CLI::App& command =
      *app.add_subcommand("convert", "Write a data set as records, which load fastest (docs/records.md)");
  command.add_option("--from", o.from, dataset_kinds())->required();
  command.add_option("--to", o.to, "The file to write, NAME.mlr")->required();
  command
      .add_option("--part-size,--shard-size", o.part_size,
                  "Split into files of at most about this many bytes: 500000000, 2GB")
      ->transform(CLI::AsSizeValue(true))
      ->check(whole_number(1, std::int64_t{1} << 60));
  command.add_flag("--restart-rows", o.restart_rows,
                   "Rewrite JPEGs without loss so that a crop decodes only its rows");
  command.add_flag("--test", o.test, "Take the test part, where the data set has one");
  command.add_option("--threads", o.threads, "Threads (0: this process's cores)")->check(whole_number(0));
  command.callback([options] { run(*options); });
}

}  // namespace millrace::app
