#include "pipeline/image/transform_words.h"

#include <algorithm>
#include <charconv>

namespace millrace {
namespace {

template <typename T>
T parse(std::string_view text, std::string_view word, T least, T most, const char* kind) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !(value >= least && value <= most)) {
    throw InputError("transforms: '{}' needs a {} from {} to {}, got '{}'", word, kind, least, most, text);
  }
  return value;
}

}  // namespace

std::string_view trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') {
    text.remove_prefix(1);
  }
  while (!text.empty() && text.back() == ' ') {
    text.remove_suffix(1);
  }
  return text;
}

std::string_view take(std::string_view& text, char separator) {
  const std::size_t end = std::min(text.find(separator), text.size());
  const std::string_view head = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return trim(head);
}

std::int64_t parse_whole(std::string_view text, std::string_view word, std::int64_t least,
                         std::int64_t most) {
  return parse(text, word, least, most, "whole number");
}

float parse_decimal(std::string_view text, std::string_view word, float least, float most) {
  return parse(text, word, least, most, "number");
}

}  // namespace millrace
