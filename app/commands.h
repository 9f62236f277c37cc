#pragma once

#include <CLI/CLI.hpp>

/// One function a subcommand: declares its options and what running it does.
namespace millrace::app {

void add_train(CLI::App& app);
void add_eval(CLI::App& app);
void add_predict(CLI::App& app);
void add_convert(CLI::App& app);
void add_inspect(CLI::App& app);
void add_devices(CLI::App& app);
void add_check(CLI::App& app);
void add_launch(CLI::App& app);
void add_plan(CLI::App& app);
void add_bench_train(CLI::App& bench);
void add_bench_loader(CLI::App& bench);
void add_bench_exchange(CLI::App& bench);

}  // namespace millrace::app
