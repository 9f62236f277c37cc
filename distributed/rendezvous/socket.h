#pragma once

#include <chrono>
#include <string>
#include <utility>

namespace millrace {

/// A TCP connection or listener; closed with it.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~Socket();

  int descriptor() const { return descriptor_; }
  bool is_open() const { return descriptor_ >= 0; }
  /// The port that it is bound to.
  int port() const;
  /// Who is at the other end, "10.0.0.7:41234".
  std::string peer() const;
  /// The address that this end of a connection has, without the port.
  std::string own_address() const;

 private:
  int descriptor_ = -1;
};

/// Whether it is an address, or could be the name of a machine; asks nobody.
bool may_be_host(const std::string& host);
bool is_loopback(const std::string& address);
/// The address of this machine from which packets go to `address`. @throws CommunicatorError when none do.
std::string address_towards(const std::string& address);

/// Listens at an address or at "localhost"; for any other name at all addresses of this machine, where the
/// name may mean loopback. Port 0 takes a free one. @throws MachineError
Socket listen_at(const std::string& host, int port);

/// Connects, again and again while the name is not known, which it says once, or nobody listens there yet.
/// @throws InputError for the name, CommunicatorError for the rest, after the deadline.
Socket connect_to(const std::string& host, int port, std::chrono::steady_clock::time_point deadline);

/// A message on a connection: four bytes of length, one of kind, then the text.
struct Frame {
  enum class Kind : char { hello, welcome, refused, gather, gathered, beat, failed, goodbye };
  Kind kind;
  std::string text;

  std::string to_bytes() const;
  /// Takes the first whole frame from the front of `bytes`, or nothing.
  /// @throws CommunicatorError when these bytes are no frame, or one of more than `most` bytes.
  static bool take(std::string& bytes, std::size_t most, Frame& frame);
};

/// Appends what has come to `bytes`, without waiting; false at the end of the connection.
bool receive_some(const Socket& socket, std::string& bytes);
/// Sends what goes out without waiting, and takes it from the front of `bytes`; false when the connection is
/// broken.
bool send_some(const Socket& socket, std::string& bytes);

}  // namespace millrace
