#include <CLI/CLI.hpp>
#include <algorithm>
#include <fmt/core.h>
#include <memory>

#include "app/commands.h"
#include "app/exit_code.h"
#include "app/interruption.h"
#include "app/local_ranks.h"
#include "app/options.h"
#include "base/error.h"
#include "base/tell.h"

namespace millrace::app {

namespace {

struct LaunchOptions {
  int ranks = 2, restarts = 0, min_ranks = 0;
  std::vector<std::string> words;
};

bool has(const std::vector<std::string>& words, const std::string& option) {
  return std::ranges::any_of(
      words, [&](const std::string& word) { return word == option || word.starts_with(option + "="); });
}

/// Starts the ranks, again after a failure as often as allowed, and leaves with the exit code of the last
/// ones.
void launch(const LaunchOptions& o) {
  for (const char* option : {"--rank", "--world-size", "--local-rank", "--master"}) {
    if (has(o.words, option)) {
      throw InputError("launch: {} is given, and launch gives each rank its own; leave it out", option);
    }
  }
  if (o.min_ranks > 0 && o.restarts == 0) {
    throw InputError("launch: --min-ranks is for restarts, and --restarts is 0; give more, or leave it out");
  }
  if (o.min_ranks > o.ranks) {
    throw InputError("launch: got --min-ranks {} for {}, expected at most as many", o.min_ranks,
                     counted(o.ranks, "rank"));
  }
  note_closed_output();
  std::vector<std::string> words = o.words;
  int ranks = o.ranks;
  for (int restart = 0;; ++restart) {
    const LocalRanks::Outcome outcome = LocalRanks(ranks, words).wait();
    if (outcome.code != 0) {
      tell(fmt::format("millrace: {}; all ended", outcome.what));
    }
    // Wrong input is wrong again.
    if (outcome.code == 0 || outcome.stopped || outcome.code == kWrongInput || restart == o.restarts) {
      if (outcome.code != 0) {
        throw CLI::RuntimeError(outcome.code);
      }
      return;
    }
    if (o.min_ranks > 0) {
      ranks = std::max(ranks - 1, o.min_ranks);
    }
    if (has(words, "--checkpoint") && !has(words, "--resume")) {
      words.insert(words.end(), {"--resume", "auto"});
    }
    tell(fmt::format("millrace: restart {} of {} with {}", restart + 1, o.restarts, counted(ranks, "rank")));
  }
}

}  // namespace

void add_launch(CLI::App& app) {
  auto options = std::make_shared<LaunchOptions>();
  LaunchOptions& o = *options;
  CLI::App& command =
      *app.add_subcommand("launch", "Start several ranks on this machine: launch -n 4 -- train ...");
  command.add_option("-n,--ranks", o.ranks, "Processes to start")->check(whole_number(1, 256));
  command
      .add_option("--restarts", o.restarts,
                  "After a failure, start all again so often, from the last checkpoint")
      ->check(whole_number(0));
  command
      .add_option("--min-ranks", o.min_ranks, "Each restart has one rank fewer, down to so many (0: as many)")
      ->check(whole_number(0, 256));
  command.add_option("command", o.words, "What each rank runs, behind --: train ...")->required();
  command.callback([options] { launch(*options); });
}

}  // namespace millrace::app
