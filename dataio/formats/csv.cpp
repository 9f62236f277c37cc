#include "dataio/formats/csv.h"

#include <algorithm>

#include "base/error.h"

namespace millrace {

CsvReader::CsvReader(std::string_view text, std::string name) : text_(text), name_(std::move(name)) {
  if (text_.starts_with("\xEF\xBB\xBF")) {  // how Windows marks UTF-8
    position_ = 3;
  }
}

bool CsvReader::next(std::vector<std::string>& fields) {
  fields.clear();
  while (position_ < text_.size() && (text_[position_] == '\n' || text_[position_] == '\r')) {
    line_ += text_[position_++] == '\n';
  }
  begin_ = position_;
  begin_line_ = line_;
  if (position_ == text_.size()) {
    return false;
  }
  while (true) {
    fields.push_back(position_ < text_.size() && text_[position_] == '"' ? quoted_field() : plain_field());
    if (at_line_end()) {
      return true;
    }
    ++position_;  // the comma
  }
}

bool CsvReader::at_line_end() const {
  return position_ == text_.size() || text_[position_] == '\n' || text_[position_] == '\r';
}

std::string CsvReader::plain_field() {
  const std::size_t end = std::min(text_.find_first_of(",\r\n", position_), text_.size());
  std::string_view field = text_.substr(position_, end - position_);
  position_ = end;
  field.remove_prefix(std::min(field.find_first_not_of(" \t"), field.size()));
  return std::string(field.substr(0, field.find_last_not_of(" \t") + 1));
}

std::string CsvReader::quoted_field() {
  std::string field;
  for (++position_; position_ < text_.size(); ++position_) {
    if (text_[position_] == '"') {
      ++position_;
      if (position_ == text_.size() || text_[position_] != '"') {
        if (at_line_end() || text_[position_] == ',') {
          return field;
        }
        throw InputError(
            "{}: a closing quote is followed by more text, at offset {}; a quote inside quotes is "
            "written twice",
            where(), position_);
      }
    }
    line_ += text_[position_] == '\n';
    field.push_back(text_[position_]);
  }
  throw InputError("{}: a quote is not closed", where());
}

std::string CsvReader::where() const {
  return fmt::format("{}, line {} (offset {})", name_, begin_line_, begin_);
}

}  // namespace millrace
