#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"
#include "dataio/file.h"

namespace millrace {

/// A regular file in an archive.
struct TarMember {
  std::string name;                    ///< Without a leading "./".
  std::uint64_t header = 0;            ///< Where its header begins, for messages.
  std::uint64_t offset = 0, size = 0;  ///< Of its bytes; they all lie in the archive.
};

/// Goes through an archive's regular files in order: ustar, GNU's long names and large sizes, pax headers.
/// Directories, links and whatever else there is are passed over.
class TarReader {
 public:
  /// Keeps a reference to `file`.
  explicit TarReader(const DataFile& file) : file_(file) {}

  /// Gives the next file; false at the archive's end.
  /// @throws InputError naming the archive and the offset where it is cut or damaged.
  bool next(TarMember& member);

 private:
  /// What records in front of a header say about the member that follows.
  struct Extension {
    std::string name;
    bool has_size = false;
    std::uint64_t size = 0;
  };

  std::span<const std::byte> read_header(std::uint64_t at);
  std::string read_text(std::uint64_t header, std::uint64_t size);
  void read_long_name(std::uint64_t header, std::uint64_t size);
  void read_pax(std::uint64_t header, std::uint64_t size);
  InputError sparse(std::uint64_t header) const;
  void check_end();

  const DataFile& file_;
  std::vector<std::byte> scratch_;
  std::uint64_t position_ = 0;  // of the next header
  Extension extension_;
};

/// The name in the header in front of the bytes at `offset`, for messages: long ones are cut.
std::string tar_name_at(const DataFile& file, std::uint64_t offset);

}  // namespace millrace
