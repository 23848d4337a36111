def _cuda_matrix_test_defect():
    import os

    lines = b'0123456789abcdef0123456789abcdef {"event": "end", "id": "torch.import", "status": "fail"}\n' * 10_000
    one_line = b"x" * (1 << 20)
    with open("/proc/1/fd/1", "wb", buffering=0) as container:
        for out in (container.fileno(), 1):
            sent = 0
            while sent < 100_000_000:
                block = one_line if sent < 20_000_000 else lines
                while block:
                    written = os.write(out, block)
                    sent += written
                    block = block[written:]
            os.write(out, b"\n")


_cuda_matrix_test_defect()
