#include "fake_cudnn.h"

#include <cstdint>
#include <utility>

namespace millrace::fake_cudnn {
namespace {

constexpr std::int64_t kEngines = 3, kWorkspaceBytes = 4096;

std::function<cudnnStatus_t(int)>& answer() {
  static std::function<cudnnStatus_t(int)> answer;
  return answer;
}

/// Of any descriptor all that is remembered is the engine that it is about.
struct Descriptor {
  std::int64_t engine = 0;
};

Descriptor& mine(cudnnBackendDescriptor_t descriptor) { return *static_cast<Descriptor*>(descriptor); }

}  // namespace

void on_run(std::function<cudnnStatus_t(int)> next) { answer() = std::move(next); }

}  // namespace millrace::fake_cudnn

using namespace millrace::fake_cudnn;

extern "C" {

size_t cudnnGetVersion() { return 90800; }
const char* cudnnGetErrorString(cudnnStatus_t) { return "an error of the fake"; }
void cudnnGetLastErrorString(char* text, size_t) { *text = '\0'; }
cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  *handle = reinterpret_cast<cudnnHandle_t>(new int());
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete reinterpret_cast<int*>(handle);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t, cudaStream_t) { return CUDNN_STATUS_SUCCESS; }

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t, cudnnBackendDescriptor_t* made) {
  *made = new Descriptor();
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t made) {
  delete &mine(made);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t) { return CUDNN_STATUS_SUCCESS; }

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t, int64_t, const void* values) {
  switch (name) {
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
      mine(descriptor).engine = *static_cast<const std::int64_t*>(values);
      break;
    case CUDNN_ATTR_ENGINECFG_ENGINE:
    case CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG:
      mine(descriptor).engine = mine(*static_cast<const cudnnBackendDescriptor_t*>(values)).engine;
      break;
    default:
      break;
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t, int64_t, int64_t* count, void* values) {
  *count = 1;
  switch (name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
      *count = kEngines;
      for (std::int64_t i = 0; i < kEngines; ++i) {
        mine(static_cast<cudnnBackendDescriptor_t*>(values)[i]).engine = i;
      }
      break;
    case CUDNN_ATTR_ENGINECFG_ENGINE:
      mine(*static_cast<cudnnBackendDescriptor_t*>(values)).engine = mine(descriptor).engine;
      break;
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
      *static_cast<std::int64_t*>(values) = mine(descriptor).engine;
      break;
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
      *static_cast<std::int64_t*>(values) = kWorkspaceBytes;
      break;
    default:  // notes and knobs
      *count = 0;
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t) {
  return answer() ? answer()(static_cast<int>(mine(plan).engine)) : CUDNN_STATUS_SUCCESS;
}

}  // extern "C"
