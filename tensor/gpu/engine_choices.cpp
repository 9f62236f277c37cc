#include "tensor/gpu/engine_choices.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/new_file.h"
#include "base/tell.h"

namespace millrace {

namespace {

constexpr std::string_view kHeader = "millrace engines 1\n";
constexpr std::uintmax_t kLargestFile = 64 << 20;

/// FNV-1a, which sees a cut or edited file; nobody forges choices.
std::uint64_t check_sum(std::string_view bytes) {
  std::uint64_t sum = 0xcbf29ce484222325u;
  for (const char byte : bytes) {
    sum = (sum ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
  }
  return sum;
}

std::string_view up_to(std::string_view& text, char end) {
  const std::string_view part = text.substr(0, text.find(end));
  text.remove_prefix(std::min(text.size(), part.size() + 1));
  return part;
}

std::int64_t number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw InputError("engine choices: got \"{}\" where a number is expected", text);
  }
  return value;
}

}  // namespace

EngineChoices::EngineChoices(std::filesystem::path file) : file_(std::move(file)) {
  try {
    choices_ = read_file();
  } catch (const Error& error) {
    warn(fmt::format("{} is ignored and will be replaced: {}", file_.string(), error.what()));
  }
}

std::size_t EngineChoices::size() const {
  const std::lock_guard lock(mutex_);
  return choices_.size();
}

std::optional<EngineChoice> EngineChoices::find(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto place = choices_.find(key);
  return place == choices_.end() ? std::nullopt : std::optional(place->second);
}

void EngineChoices::add(const std::string& key, EngineChoice choice) {
  const std::lock_guard lock(mutex_);
  choices_.insert_or_assign(key, std::move(choice));
  if (!file_.empty()) {
    save();
  }
}

std::string EngineChoices::bytes() const {
  const std::lock_guard lock(mutex_);
  return write(choices_);
}

void EngineChoices::import(std::span<const std::string> bytes) {
  Map others;
  for (const std::string& one : bytes) {
    others.merge(parse(one));
  }
  const std::lock_guard lock(mutex_);
  others.merge(choices_);
  choices_ = std::move(others);
  generation_.fetch_add(1, std::memory_order_release);
}

std::string EngineChoice::to_string() const {
  std::string text = std::to_string(engine);
  for (const auto& [kind, value] : knobs) {
    text += fmt::format(" {}:{}", kind, value);
  }
  return text;
}

std::string EngineChoices::write(const Map& choices) {
  std::string text(kHeader);
  for (const auto& [key, choice] : choices) {
    text += fmt::format("{}\t{}\n", key, choice.to_string());
  }
  return text + fmt::format("sum {:016x}\n", check_sum(text));
}

EngineChoices::Map EngineChoices::parse(std::string_view bytes) {
  constexpr std::size_t kSumLine = 4 + 16 + 1;
  if (!bytes.starts_with(kHeader) || bytes.size() < kHeader.size() + kSumLine) {
    throw InputError("engine choices: got {} bytes that do not begin with \"{}\"", bytes.size(),
                     kHeader.substr(0, kHeader.size() - 1));
  }
  std::string_view body = bytes.substr(0, bytes.size() - kSumLine);
  if (bytes.substr(body.size()) != fmt::format("sum {:016x}\n", check_sum(body))) {
    throw InputError("engine choices: the check sum at their end does not fit, they are cut or changed");
  }
  body.remove_prefix(kHeader.size());
  Map choices;
  while (!body.empty()) {
    std::string_view line = up_to(body, '\n');
    const std::string_view key = up_to(line, '\t');
    EngineChoice choice{.engine = number(up_to(line, ' ')), .knobs = {}};
    while (!line.empty()) {
      std::string_view knob = up_to(line, ' ');
      const std::int64_t kind = number(up_to(knob, ':'));
      choice.knobs.emplace_back(kind, number(knob));
    }
    choices.insert_or_assign(std::string(key), std::move(choice));
  }
  return choices;
}

EngineChoices::Map EngineChoices::read_file() const {
  std::error_code error;
  if (file_.empty() || !std::filesystem::exists(file_, error)) {
    return {};
  }
  const std::uintmax_t size = std::filesystem::file_size(file_, error);
  std::ifstream stream(file_, std::ios::binary);
  if (error || !stream || size > kLargestFile) {
    throw MachineError("cannot read {}: expected a file of at most {} bytes", file_.string(), kLargestFile);
  }
  return parse(std::string(std::istreambuf_iterator<char>(stream), {}));
}

void EngineChoices::save() {
  Map together = choices_;
  try {
    together.merge(read_file());
  } catch (const Error&) {  // damaged: it is replaced
  }
  try {
    std::error_code error;  // writing says it better
    std::filesystem::create_directories(file_.parent_path(), error);
    const std::string text = write(together);
    NewFile file(file_);
    file.write(text.data(), text.size());
    file.commit();
  } catch (const Error& failure) {
    warn(fmt::format("choices of engines are not kept for the next run: {}", failure.what()));
  }
}

void EngineChoices::warn(std::string_view what) {
  if (!std::exchange(warned_, true)) {
    tell(fmt::format("millrace: warning: {}", what));
  }
}

std::filesystem::path user_cache_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value == nullptr ? "" : value);
  };
  // Relative paths there are to be ignored, says the specification.
  if (const auto cache = variable("XDG_CACHE_HOME"); cache.is_absolute()) {
    return cache / "millrace";
  }
  const auto home = variable("HOME");
  return home.is_absolute() ? home / ".cache" / "millrace" : std::filesystem::path();
}

EngineChoices& engine_choices() {
  static EngineChoices choices([] {
    const std::filesystem::path folder = user_cache_folder();
    return folder.empty() ? folder : folder / "engines";
  }());
  return choices;
}

}  // namespace millrace
