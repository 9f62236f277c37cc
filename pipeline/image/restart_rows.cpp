#include "pipeline/image/restart_rows.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <new>
// jpeglib.h needs size_t and FILE, and does not include them.
#include <jerror.h>
#include <jpeglib.h>

#include "base/error.h"
#include "pipeline/image/decode.h"
#include "pipeline/image/jpeg_header.h"

namespace millrace {
namespace {

constexpr unsigned kMarkerBytes = 0xFFFF;

}  // namespace

/// libjpeg reports errors by longjmp to the frame that called it; such frames hold no objects with
/// destructors.
class RestartRows::Jpeg {
 public:
  Jpeg() {
    in_.err = out_.err = jpeg_std_error(&error_);
    in_.client_data = out_.client_data = this;
    error_.error_exit = [](j_common_ptr info) { self(info).jump(info); };
    error_.emit_message = [](j_common_ptr info, int level) {
      if (level < 0) {
        self(info).jump(info);
      }  // a warning: the file is damaged, and coefficients would be made up
    };
    jpeg_create_decompress(&in_);
    jpeg_create_compress(&out_);
    jpeg_save_markers(&in_, JPEG_COM, kMarkerBytes);
    for (int i = 0; i < 16; ++i) {
      jpeg_save_markers(&in_, JPEG_APP0 + i, kMarkerBytes);
    }
    progress_.progress_monitor = [](j_common_ptr info) {
      if (info->is_decompressor &&
          reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > kMostJpegScans) {
        ERREXIT(info, JERR_BAD_PROGRESSION);
      }
    };
    in_.progress = &progress_;
    destination_.init_destination = [](j_compress_ptr info) { self(info).grow(0); };
    destination_.empty_output_buffer = [](j_compress_ptr info) -> boolean {
      self(info).grow(self(info).buffer_.size());
      return TRUE;
    };
    destination_.term_destination = [](j_compress_ptr) {};
    out_.dest = &destination_;
  }
  ~Jpeg() {
    jpeg_destroy_compress(&out_);
    jpeg_destroy_decompress(&in_);
  }

  std::vector<std::byte> rewrite(std::span<const std::byte> jpeg) {
    check_jpeg_size(read_jpeg_header(jpeg), jpeg.size(), DecodeOptions{}.max_pixels);
    const bool done = transcode(jpeg);
    const std::size_t size = buffer_.size() - destination_.free_in_buffer;
    const std::int64_t height = in_.image_height, width = in_.image_width;
    jpeg_abort_compress(&out_);
    jpeg_abort_decompress(&in_);
    if (!done) {
      throw InputError("cannot rewrite a JPEG of {} x {} (height x width) with restart rows: {}", height,
                       width, static_cast<const char*>(reason_));
    }
    return {buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(size)};
  }

 private:
  template <typename Info>
  static Jpeg& self(Info info) {
    return *static_cast<Jpeg*>(info->client_data);
  }

  [[noreturn]] void jump(j_common_ptr info) {
    error_.format_message(info, reason_);
    std::longjmp(jump_, 1);
  }

  /// Makes room behind the `used` bytes of the output.
  void grow(std::size_t used) {
    if (!try_resize(used + std::max<std::size_t>(used, 1 << 16))) {
      ERREXIT1(&out_, JERR_OUT_OF_MEMORY, 0);
    }
    destination_.next_output_byte = reinterpret_cast<JOCTET*>(buffer_.data() + used);
    destination_.free_in_buffer = buffer_.size() - used;
  }

  /// No exception may pass through libjpeg.
  bool try_resize(std::size_t size) noexcept {
    try {
      buffer_.resize(std::max(buffer_.size(), size));
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

  bool transcode(std::span<const std::byte> jpeg) {
    destination_.free_in_buffer = buffer_.size();
    in_.image_height = in_.image_width = 0;
    if (setjmp(jump_) != 0) {
      return false;
    }
    jpeg_mem_src(&in_, reinterpret_cast<const unsigned char*>(jpeg.data()), jpeg.size());
    jpeg_read_header(&in_, TRUE);
    jvirt_barray_ptr* coefficients = jpeg_read_coefficients(&in_);
    jpeg_copy_critical_parameters(&in_, &out_);
    // No marker that was not there: decoders tell from them what the colours mean.
    out_.write_JFIF_header = in_.saw_JFIF_marker;
    out_.write_Adobe_marker = in_.saw_Adobe_marker;
    out_.optimize_coding = TRUE;
    out_.restart_in_rows = 1;
    jpeg_write_coefficients(&out_, coefficients);
    copy_markers();
    jpeg_finish_compress(&out_);
    jpeg_finish_decompress(&in_);
    return true;
  }

  /// All but those that libjpeg writes itself.
  void copy_markers() {
    for (jpeg_saved_marker_ptr marker = in_.marker_list; marker != nullptr; marker = marker->next) {
      const auto starts_with = [&](const char* name, unsigned size) {
        return marker->data_length >= size && std::memcmp(marker->data, name, size) == 0;
      };
      const bool jfif = out_.write_JFIF_header && marker->marker == JPEG_APP0 && starts_with("JFIF", 5);
      const bool adobe =
          out_.write_Adobe_marker && marker->marker == JPEG_APP0 + 14 && starts_with("Adobe", 5);
      if (!jfif && !adobe) {
        jpeg_write_marker(&out_, marker->marker, marker->data, marker->data_length);
      }
    }
  }

  jpeg_decompress_struct in_{};
  jpeg_compress_struct out_{};
  jpeg_error_mgr error_{};
  jpeg_progress_mgr progress_{};
  jpeg_destination_mgr destination_{};
  std::jmp_buf jump_;
  char reason_[JMSG_LENGTH_MAX] = "";
  std::vector<std::byte> buffer_;
};

RestartRows::RestartRows() : jpeg_(std::make_unique<Jpeg>()) {}
RestartRows::~RestartRows() = default;

std::vector<std::byte> RestartRows::rewrite(std::span<const std::byte> jpeg) { return jpeg_->rewrite(jpeg); }

}  // namespace millrace
