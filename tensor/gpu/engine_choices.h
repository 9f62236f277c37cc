#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace millrace {

/// Which of cuDNN's engines runs a convolution, by its number, and the settings of its knobs (kind, value).
struct EngineChoice {
  std::int64_t engine = 0;
  std::vector<std::pair<std::int64_t, std::int64_t>> knobs;
  bool operator==(const EngineChoice&) const = default;
  /// "12 3:1 4:64": the engine, and each knob with its value.
  std::string to_string() const;
};

/// Choices by key, in memory and in a file that processes share. A key is one line of text without tabs that
/// says all that a choice depends on: operation, types, sizes, device, library.
class EngineChoices {
 public:
  /// Reads `file`, when there is one; an empty path keeps choices in memory alone. A file that is damaged or
  /// not ours is ignored with a warning on stderr, and replaced by the next choice.
  explicit EngineChoices(std::filesystem::path file);

  std::optional<EngineChoice> find(const std::string& key) const;
  /// Adds one and writes the file anew, together with what others wrote meanwhile. A file that cannot be
  /// written is warned about once.
  void add(const std::string& key, EngineChoice choice);

  std::size_t size() const;
  /// All choices as text with a check sum.
  std::string bytes() const;
  /// Takes over others' choices; theirs win, the first ones' over the later ones'.
  /// @throws InputError when any are damaged; nothing changes then.
  void import(std::span<const std::string> bytes);
  void import(const std::string& bytes) { import(std::span(&bytes, 1)); }
  /// Counts calls of `import`, after which a plan made before may no longer be what was chosen.
  std::uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

 private:
  using Map = std::map<std::string, EngineChoice>;
  static std::string write(const Map& choices);
  static Map parse(std::string_view bytes);
  Map read_file() const;
  void save();
  void warn(std::string_view what);

  const std::filesystem::path file_;
  mutable std::mutex mutex_;
  Map choices_;
  std::atomic<std::uint64_t> generation_ = 0;
  bool warned_ = false;
};

/// Where this user's programs keep what they found out: $XDG_CACHE_HOME/millrace, or ~/.cache/millrace; empty
/// where neither is known.
std::filesystem::path user_cache_folder();

/// Those of this process, kept in $XDG_CACHE_HOME/millrace/engines (~/.cache/millrace/engines). For other
/// ranks and for checkpoints take its `bytes()`: where engines differ, bits do.
EngineChoices& engine_choices();

}  // namespace millrace
