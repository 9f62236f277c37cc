#include "app/output/progress.h"

#include <cstdio>
#include <fmt/core.h>
#include <unistd.h>

#include "app/output/measure.h"

namespace millrace::app {

Progress::Progress(std::string title, std::int64_t steps)
    : title_(std::move(title)), steps_(steps), on_terminal_(::isatty(STDERR_FILENO) == 1) {}

void Progress::update(std::int64_t step, std::int64_t images, std::optional<double> loss) {
  if (!on_terminal_) {
    return;
  }
  const Clock::time_point now = Clock::now();
  if (now < next_ && step < steps_) {
    return;
  }
  next_ = now + std::chrono::milliseconds(100);
  constexpr std::int64_t kWidth = 30;
  const auto filled = static_cast<std::size_t>(kWidth * step / std::max<std::int64_t>(steps_, 1));
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const std::string bar = fmt::format("\r{} [{}{}] {}/{}{}  {} images/s\033[K", title_,
                                      std::string(filled, '='), std::string(kWidth - filled, ' '), step,
                                      steps_, loss ? fmt::format("  loss {:.3f}", *loss) : "",
                                      with_commas(static_cast<double>(images) / std::max(seconds, 1e-9)));
  std::fputs(bar.c_str(), stderr);  // fmt's print would throw where the terminal is gone
  drawn_ = true;
}

void Progress::clear() {
  if (!drawn_) {
    return;
  }
  std::fputs("\r\033[K", stderr);
  drawn_ = false;
}

}  // namespace millrace::app
