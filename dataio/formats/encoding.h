#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "dataio/dataset.h"

namespace millrace {

/// JPEG or PNG by their first bytes; nothing for anything else.
std::optional<Encoding> encoding_of(std::span<const std::byte> bytes);

/// Whether a file's name ends as images' do. Kinds that cannot be read count as well: they are named in an
/// error when they are read, and not left out in silence.
bool has_image_ending(std::string_view name);

}  // namespace millrace
