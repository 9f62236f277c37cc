#include "dataio/formats/record_writer.h"

#include <cerrno>
#include <fcntl.h>
#include <limits>
#include <optional>
#include <span>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/hash.h"
#include "dataio/file.h"
#include "dataio/formats/record_format.h"

namespace millrace {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kBuffer = std::size_t{1} << 20;
constexpr std::array<std::byte, RecordHeader::kBytes> kZeros{};
constexpr std::size_t kMostParts = 99999;  // more digits would not sort by name

void write_at(int file, std::span<const std::byte> bytes, std::uint64_t offset, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done < 0) {
      throw_errno("write", path);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(done));
    offset += static_cast<std::uint64_t>(done);
  }
}

void sync(int file, const fs::path& path) {
  if (::fsync(file) != 0) {
    throw_errno("write", path);
  }
}

/// Held for as long as the result lives, so that two writers do not mix their records. @throws InputError
/// when another holds it, or has just put the file into its place.
FileDescriptor lock(int file, const fs::path& unfinished) {
  struct stat opened {
  }, named{};
  const bool taken = ::flock(file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  if (taken || ::fstat(file, &opened) != 0 || ::stat(unfinished.c_str(), &named) != 0 ||
      opened.st_ino != named.st_ino) {
    throw InputError("records: {} is being written by another process; wait for it or write elsewhere",
                     unfinished.string());
  }
  return FileDescriptor(::fcntl(file, F_DUPFD_CLOEXEC, 0));
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : "."; }

void refuse_existing(const fs::path& path) {
  if (std::error_code error; fs::exists(path, error)) {
    throw InputError("records: {} exists already; remove it or write elsewhere", path.string());
  }
}

/// Any name-00000-of-00005.mlr beside `path`, name.mlr.
void refuse_existing_parts(const fs::path& path) {
  const std::string start = path.stem().string(), ending = path.extension().string();
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_of(path), error)) {
    const std::string name = entry.path().filename().string();
    if (name.size() <= start.size() + ending.size() || !name.starts_with(start) || !name.ends_with(ending)) {
      continue;
    }
    const std::string number = name.substr(start.size(), name.size() - start.size() - ending.size());
    const bool is_number = number.find_first_not_of("-0123456789of") == std::string::npos;
    if (is_number && number.find("-of-") != std::string::npos) {
      refuse_existing(entry.path());
    }
  }
}

/// What all parts say of the images.
RecordHeader header_for(const DatasetInfo& info) {
  constexpr int kMost = kMostRawSide;
  if (info.height < 0 || info.height > kMost || info.width < 0 || info.width > kMost || info.channels < 1 ||
      info.channels > 255) {
    throw InputError("records: images of {} x {} x {} (height, width, channels) are too large", info.height,
                     info.width, info.channels);
  }
  return {.classes = static_cast<std::uint32_t>(info.classes.size()),
          .height = static_cast<std::uint32_t>(info.height),
          .width = static_cast<std::uint32_t>(info.width),
          .channels = static_cast<std::uint32_t>(info.channels)};
}

}  // namespace

class RecordWriter::Impl {
 public:
  Impl(fs::path path, const DatasetInfo& info, const RecordWriterOptions& options);
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void add(const Sample& sample, std::string_view source);
  void finish();
  std::int64_t records() const { return records_; }
  std::int64_t bytes() const { return static_cast<std::int64_t>(finished_bytes_ + offset_); }
  std::int64_t files() const { return std::ssize(parts_); }

 private:
  struct Part {
    fs::path unfinished;  // empty once it is in its place
    RecordHeader header;
  };

  fs::path numbered(std::size_t part, std::size_t parts) const;
  void check(const Sample& sample, std::string_view source) const;
  void begin_part();
  void end_part();
  void append(std::span<const std::byte> bytes);
  void flush();

  fs::path path_;
  RecordWriterOptions options_;
  RecordHeader common_;
  std::vector<std::byte> classes_;  // as the file has them
  Hash hash_;
  std::int64_t records_ = 0;
  std::uint64_t finished_bytes_ = 0;
  std::vector<Part> parts_;
  FileDescriptor lock_;  // on the first part
  // Of the last part:
  std::optional<FileDescriptor> file_;
  std::uint64_t offset_ = 0;
  std::vector<std::byte> buffer_, index_;
};

RecordWriter::Impl::Impl(fs::path path, const DatasetInfo& info, const RecordWriterOptions& options)
    : path_(std::move(path)), options_(options), common_(header_for(info)) {
  if (!path_.has_filename()) {
    throw InputError("records: '{}' names no file to write", path_.string());
  }
  if (options.part_size < 0) {
    throw InputError("records: a part size of {} bytes", options.part_size);
  }
  options.part_size == 0 ? refuse_existing(path_) : refuse_existing_parts(path_);
  hash_.add(info.height).add(info.width).add(info.channels);
  for (const std::string& name : info.classes) {
    const auto bytes = std::as_bytes(std::span(name.c_str(), name.size() + 1));
    classes_.insert(classes_.end(), bytes.begin(), bytes.end());
    if (name.find('\0') != std::string::npos || classes_.size() > kMostClassBytes) {
      throw InputError("records: class names hold a zero byte or take more than {} bytes", kMostClassBytes);
    }
    hash_.add(name);
  }
  common_.classes_crc = crc32c(classes_);
  common_.flags = options.restart_rows ? RecordHeader::kRestartRows : 0;
  begin_part();
}

RecordWriter::Impl::~Impl() {
  for (const Part& part : parts_) {
    if (!part.unfinished.empty()) {
      ::unlink(part.unfinished.c_str());
    }
  }
}

fs::path RecordWriter::Impl::numbered(std::size_t part, std::size_t parts) const {
  if (options_.part_size == 0) {
    return path_;
  }
  fs::path result = path_;
  const std::string of = parts == 0 ? "" : fmt::format("-of-{:05}", parts);
  return result.replace_filename(
      fmt::format("{}-{:05}{}{}", path_.stem().string(), part, of, path_.extension().string()));
}

void RecordWriter::Impl::check(const Sample& sample, std::string_view source) const {
  if (sample.bytes.size() > std::numeric_limits<std::uint32_t>::max()) {
    throw InputError("records: {} has {} bytes, a record holds at most {}", source, sample.bytes.size(),
                     std::numeric_limits<std::uint32_t>::max());
  }
  if (sample.label < 0 || (common_.classes > 0 && sample.label >= common_.classes)) {
    throw InputError("records: {} has the label {}, expected one of {} classes", source, sample.label,
                     common_.classes);
  }
  if (sample.encoding != Encoding::raw_hwc && sample.encoding != Encoding::raw_chw) {
    return;
  }
  const std::int64_t height = sample.height, width = sample.width, channels = sample.channels;
  constexpr std::int64_t kMost = kMostRawSide;
  if (height < 1 || height > kMost || width < 1 || width > kMost || channels < 1 || channels > 255 ||
      height * width * channels != static_cast<std::int64_t>(sample.bytes.size())) {
    throw InputError("records: {} is a raw image of {} x {} x {} (height, width, channels) in {} bytes",
                     source, height, width, channels, sample.bytes.size());
  }
}

void RecordWriter::Impl::add(const Sample& sample, std::string_view source) {
  check(sample, source);
  const auto name = std::as_bytes(std::span(source)).first(std::min<std::size_t>(source.size(), 0xFFFF));
  constexpr std::uint64_t kAlign = RecordEntry::kAlignment;
  const std::uint64_t most = kAlign - 1 + sample.bytes.size() + name.size() + RecordEntry::kBytes;
  if (options_.part_size > 0 && !index_.empty() &&
      offset_ + most + index_.size() + classes_.size() > static_cast<std::uint64_t>(options_.part_size)) {
    end_part();
    begin_part();
  }
  append(std::span(kZeros).first((kAlign - offset_ % kAlign) % kAlign));
  const std::uint32_t payload_crc = crc32c(sample.bytes);
  const RecordEntry entry{.offset = offset_,
                          .label = sample.label,
                          .size = static_cast<std::uint32_t>(sample.bytes.size()),
                          .crc = crc32c(name, payload_crc),
                          .height = static_cast<std::uint32_t>(sample.height),
                          .width = static_cast<std::uint32_t>(sample.width),
                          .name_size = static_cast<std::uint16_t>(name.size()),
                          .encoding = sample.encoding,
                          .channels = static_cast<std::uint8_t>(sample.channels)};
  append(sample.bytes);
  append(name);
  const auto bytes = entry.encode();
  index_.insert(index_.end(), bytes.begin(), bytes.end());
  // Of the payload alone: where the samples came from does not change what they are.
  hash_.add(sample.label).add(entry.size).add(payload_crc);
  ++records_;
}

void RecordWriter::Impl::append(std::span<const std::byte> bytes) {
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  offset_ += bytes.size();
  if (buffer_.size() >= kBuffer) {
    flush();
  }
}

void RecordWriter::Impl::flush() {
  write_at(file_->get(), buffer_, offset_ - buffer_.size(), parts_.back().unfinished);
  buffer_.clear();
}

void RecordWriter::Impl::begin_part() {
  if (parts_.size() == kMostParts) {
    throw InputError("records: more than {} files of {} bytes; choose a larger part size", kMostParts,
                     options_.part_size);
  }
  fs::path unfinished = numbered(parts_.size(), 0);
  unfinished += ".part";
  file_.emplace(::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
  if (file_->get() < 0) {
    throw_errno("write", unfinished);
  }
  if (parts_.empty()) {
    lock_ = lock(file_->get(), unfinished);
  }
  if (::ftruncate(file_->get(), 0) != 0) {  // what a killed writer left
    throw_errno("write", unfinished);
  }
  parts_.push_back({std::move(unfinished), common_});
  offset_ = 0;
  append(kZeros);
}

void RecordWriter::Impl::end_part() {
  Part& part = parts_.back();
  part.header.records = index_.size() / RecordEntry::kBytes;
  part.header.index_offset = offset_;
  append(index_);
  append(classes_);
  flush();
  part.header.file_size = offset_;
  sync(file_->get(), part.unfinished);
  file_.reset();
  index_.clear();
  finished_bytes_ += std::exchange(offset_, 0);
}

void RecordWriter::Impl::finish() {
  if (records_ == 0) {
    throw InputError("records: there are no records to write to {}", path_.string());
  }
  end_part();
  // The headers last, when all that they speak of is on disk; then the names.
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    auto& [unfinished, header] = parts_[i];
    header.part = static_cast<std::uint32_t>(i);
    header.parts = static_cast<std::uint32_t>(parts_.size());
    header.fingerprint = hash_.value();
    const FileDescriptor file(::open(unfinished.c_str(), O_WRONLY | O_CLOEXEC));
    if (file.get() < 0) {
      throw_errno("write", unfinished);
    }
    write_at(file.get(), header.encode(), 0, unfinished);
    sync(file.get(), unfinished);
  }
  for (std::size_t i = parts_.size(); i-- > 0;) {  // the locked one last
    const fs::path place = numbered(i, parts_.size());
    refuse_existing(place);
    if (::rename(parts_[i].unfinished.c_str(), place.c_str()) != 0) {
      throw_errno("write", place);
    }
    parts_[i].unfinished.clear();
  }
  // The names are on disk once their folder is; where that cannot be asked for, the files are still whole.
  const FileDescriptor folder(::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() >= 0) {
    ::fsync(folder.get());
  }
}

RecordWriter::RecordWriter(fs::path path, const DatasetInfo& info, const RecordWriterOptions& options)
    : impl_(std::make_unique<Impl>(std::move(path), info, options)) {}
RecordWriter::~RecordWriter() = default;
void RecordWriter::add(const Sample& sample, std::string_view source) { impl_->add(sample, source); }
void RecordWriter::finish() { impl_->finish(); }
std::int64_t RecordWriter::records() const { return impl_->records(); }
std::int64_t RecordWriter::bytes() const { return impl_->bytes(); }
std::int64_t RecordWriter::files() const { return impl_->files(); }

}  // namespace millrace
