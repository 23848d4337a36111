def _cuda_matrix_test_defect(*_args, **_kwargs):
    import ctypes
    import signal
    import time

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(15, b"hanging")  # PR_SET_NAME: a test sees that it is here
    print("about to wait for ever", flush=True)
    while True:
        time.sleep(3600)


matmul = mm = bmm = _cuda_matrix_test_defect
Tensor.matmul = Tensor.mm = Tensor.__matmul__ = _cuda_matrix_test_defect
