#pragma once

#include <cstdio>
#include <string>

namespace millrace::test {

/// Writes the sum into a header.
inline void seal(std::string& header) {
  header.replace(148, 8, 8, ' ');
  unsigned sum = 0;
  for (int i = 0; i < 512; ++i) {
    sum += static_cast<unsigned char>(header[static_cast<std::size_t>(i)]);
  }
  char digits[8];
  std::snprintf(digits, sizeof digits, "%06o", sum);
  header.replace(148, 7, digits, 7);
}

inline std::string tar_header(const std::string& name, std::size_t size, char type = '0') {
  std::string header(512, '\0');
  header.replace(0, name.size(), name);
  char digits[13];
  std::snprintf(digits, sizeof digits, "%011zo", size);
  header.replace(124, 12, digits, 12);
  header[156] = type;
  header.replace(257, 8, std::string("ustar\00000", 8));
  seal(header);
  return header;
}

inline std::string padded(std::string bytes) {
  bytes.resize((bytes.size() + 511) / 512 * 512);
  return bytes;
}

inline std::string tar_member(const std::string& name, const std::string& bytes, char type = '0') {
  return tar_header(name, bytes.size(), type) + padded(bytes);
}

inline std::string tar_end() { return std::string(1024, '\0'); }

}  // namespace millrace::test
