#include "distributed/nested_communicator.h"

#include "distributed/operation.h"

namespace millrace {
namespace {

class NestedCommunicator final : public Communicator {
 public:
  NestedCommunicator(std::unique_ptr<Communicator> local, std::shared_ptr<Communicator> between)
      : local_(std::move(local)), between_(std::move(between)) {}

  int rank() const override { return between_->rank() * local_->size() + local_->rank(); }
  int size() const override { return between_->size() * local_->size(); }

  void all_reduce(Tensor& tensor, const Stream& stream) override {
    local_->all_reduce(tensor, stream);
    if (speaks()) {
      between_->all_reduce(tensor, stream);
    }
    local_->broadcast(tensor, 0, stream);
  }

  void reduce_scatter(Tensor& input, Tensor& output, const Stream& stream) override {
    check_parts(input, output, size(), input.device().kind, Operation::reduce_scatter);
    all_reduce(input, stream);
    const StreamGuard guard(stream);  // what is enqueued without a stream goes there as well
    const std::int64_t count = output.numel();
    output.copy_(input.view({input.numel()}).narrow(0, rank() * count, count).view(output.shape()));
  }

  void all_gather(const Tensor& input, Tensor& output, const Stream& stream) override {
    check_parts(output, input, size(), input.device().kind, Operation::all_gather);
    const StreamGuard guard(stream);
    Tensor ours = empty({input.numel() * local_->size()}, {.dtype = input.dtype(), .device = input.device()});
    local_->all_gather(input, ours, stream);
    if (speaks()) {
      between_->all_gather(ours, output, stream);
    }
    local_->broadcast(output, 0, stream);
  }

  void broadcast(Tensor& tensor, int root, const Stream& stream) override {
    check_root(root, size());
    if (root / local_->size() == between_->rank()) {
      local_->broadcast(tensor, root % local_->size(), stream);
    }
    if (speaks()) {
      between_->broadcast(tensor, root / local_->size(), stream);
    }
    local_->broadcast(tensor, 0, stream);
  }

  void barrier() override {
    local_->barrier();
    if (speaks()) {
      between_->barrier();
    }
    local_->barrier();
  }

  void wait(const Event& event) override {
    if (speaks()) {
      between_->wait(event);
    }
    local_->wait(event);
  }

  Tensor allocate(std::int64_t count, TensorOptions options) override {
    return local_->allocate(count, options);
  }

  void abort(const std::string& reason) override {
    local_->abort(reason);
    between_->abort(reason);
  }

 private:
  bool speaks() const { return local_->rank() == 0; }

  std::unique_ptr<Communicator> local_;
  std::shared_ptr<Communicator> between_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> nest(std::vector<std::unique_ptr<Communicator>> local,
                                                std::shared_ptr<Communicator> between) {
  if (between == nullptr || between->size() == 1) {
    return local;
  }
  for (auto& one : local) {
    one = std::make_unique<NestedCommunicator>(std::move(one), between);
  }
  return local;
}

}  // namespace millrace
