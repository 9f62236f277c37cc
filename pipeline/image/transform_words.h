#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "pipeline/image/transform.h"

/// How lists of transforms are read, for those who add to them.
namespace millrace {

std::string_view trim(std::string_view text);
/// Cuts off and returns what stands before `separator`.
std::string_view take(std::string_view& text, char separator);
/// @throws InputError that names `word`, the whole transform.
std::int64_t parse_whole(std::string_view text, std::string_view word, std::int64_t least,
                         std::int64_t most = 65500);  // the largest side of a JPEG image
float parse_decimal(std::string_view text, std::string_view word, float least, float most);

/// One of those that change pixels' values; null when `word` names none of them.
std::shared_ptr<const Transform> parse_color_transform(std::string_view word);

}  // namespace millrace
