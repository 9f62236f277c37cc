#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <fmt/core.h>
#include <new>
#include <numeric>
#include <unistd.h>

#include "app/commands.h"
#include "app/exit_code.h"
#include "app/interruption.h"
#include "base/error.h"
#include "tensor/config.h"

namespace {

using namespace millrace::app;

/// How many letters have to be changed, added or left out to get from one word to the other (Levenshtein).
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = std::exchange(row[j + 1], std::min({row[j + 1] + 1, row[j] + 1, replaced}));
    }
  }
  return row.back();
}

std::string closest(const std::string& word, const std::vector<std::string>& known) {
  const auto best =
      std::min_element(known.begin(), known.end(), [&](const std::string& a, const std::string& b) {
        return edit_distance(word, a) < edit_distance(word, b);
      });
  const bool is_close =
      best != known.end() && edit_distance(word, *best) <= std::max<std::size_t>(2, word.size() / 3);
  return is_close ? fmt::format("; did you mean {}?", *best) : "";
}

/// The innermost subcommand that was given, and its full name.
const CLI::App* given_command(const CLI::App& app, std::string& name) {
  const CLI::App* command = &app;
  name = app.get_name();
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    name += fmt::format(" {}", command->get_name());
  }
  return command;
}

/// One sentence for a mistake on the command line.
std::string explain(const CLI::App& app, const CLI::ParseError& error) {
  std::string name;
  const CLI::App* command = given_command(app, name);
  const std::string help = fmt::format("; see {} --help", name);
  // An unknown option comes first: a required one that is missing may only be misspelt.
  for (const std::string& word : app.remaining(true)) {
    if (word == "--") {
      break;
    }
    if (!word.starts_with("-")) {
      continue;
    }
    std::vector<std::string> known;
    for (const CLI::Option* option : command->get_options()) {
      known.push_back(option->get_name());
    }
    const std::string option = word.substr(0, word.find('='));
    if (std::find(known.begin(), known.end(), option) != known.end()) {
      return fmt::format("{}: {} stands in front of the command; put it behind", name, option);
    }
    const std::string hint = closest(option, known);
    const char* behind = "; the command of the ranks stands behind --: launch -n 2 -- train ...";
    return fmt::format("{}: unknown option {}{}", name, word,
                       !hint.empty()                     ? hint
                       : command->get_name() == "launch" ? behind
                                                         : help);
  }
  if (const std::vector<std::string> words = app.remaining(true); !words.empty() && words.front() != "--") {
    std::vector<std::string> known;
    for (const CLI::App* sub : command->get_subcommands([](const CLI::App*) { return true; })) {
      known.push_back(sub->get_name());
    }
    const std::string hint = closest(words.front(), known);
    return fmt::format("{}: unexpected word '{}'{}", name, words.front(), hint.empty() ? help : hint);
  }
  return fmt::format("{}: {}{}", name, error.what(), help);
}

int fail(int code, const char* sentence) {
  std::fflush(stdout);
  std::fprintf(stderr, "millrace: %s\n", sentence);
  return code;
}

/// Shows only the first long name of an option; further ones are older names, which still work.
class Help final : public CLI::Formatter {
  std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    const bool renamed = option->get_lnames().size() > 1 && option->get_fnames().empty();
    return renamed ? option->get_name() : CLI::Formatter::make_option_name(option, is_positional);
  }
};

/// Parses the words and runs the command that they name.
int run(int argc, char** argv) {
  CLI::App app{"Trains image networks data-parallel", "millrace"};
  app.formatter(std::make_shared<Help>());
  app.set_version_flag("--version", fmt::format("millrace {}", millrace::kVersion));
  app.require_subcommand(1);
  add_train(app);
  add_eval(app);
  add_predict(app);
  add_convert(app);
  add_inspect(app);
  CLI::App& bench = *app.add_subcommand("bench", "Measure speed");
  bench.require_subcommand(1);
  add_bench_train(bench);
  add_bench_loader(bench);
  add_bench_exchange(bench);
  add_devices(app);
  add_check(app);
  add_launch(app);
  add_plan(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    app.exit(success);  // prints what was asked for
  } catch (const CLI::RuntimeError& error) {
    return error.get_exit_code();  // of the ranks that `launch` started, which have said why
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "{}\n", explain(app, error));
    return kWrongInput;
  }
  // Of a reader that is gone, as `| head` is, `train` and `launch` have heard.
  if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && noted_signal() != SIGPIPE) {
    return fail(kMachineFailed, "cannot write to standard output; is the disk full?");
  }
  return kDone;
}

}  // namespace

int main(int argc, char** argv) {
  // Where a standard stream is closed, the next file opened would take its number, and our output.
  int file = 0;
  while (file <= STDERR_FILENO && file >= 0) {
    file = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  }
  ::close(file);
  // A file that grows too large is then an error of the write, with a message, and not a signal.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return run(argc, argv);
  } catch (const Interrupted& interrupted) {
    return fail(interrupted.exit_code(), interrupted.what());
  } catch (const millrace::InputError& error) {
    return fail(kWrongInput, error.what());
  } catch (const millrace::CommunicatorError& error) {
    return fail(kPeerFailed, error.what());
  } catch (const std::bad_alloc&) {
    return fail(kMachineFailed, "out of memory; try a smaller --batch-size, fewer --threads or less data");
  } catch (const std::exception& error) {
    return fail(kMachineFailed, error.what());
  }
}
