// The precompiled header of every test without LibTorch (cmake/GpipeTargets.cmake).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/pch.h"
