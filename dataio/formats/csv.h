#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

/// Reads lines of fields between commas. A field in double quotes may hold commas, ends of lines and doubled
/// quotes; spaces around others do not count. Empty lines are passed over.
class CsvReader {
 public:
  /// Keeps a view of `text`; `name` is for messages.
  CsvReader(std::string_view text, std::string name);

  /// Gives the next line's fields; false at the end. @throws InputError naming the line and the offset.
  bool next(std::vector<std::string>& fields);
  /// "NAME, line 3 (offset 17)", of the line last given.
  std::string where() const;

 private:
  std::string quoted_field();
  std::string plain_field();
  bool at_line_end() const;

  std::string_view text_;
  std::string name_;
  std::size_t position_ = 0, begin_ = 0;
  std::size_t line_ = 1, begin_line_ = 1;
};

}  // namespace millrace
